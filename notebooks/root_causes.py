# Databricks notebook source
# MAGIC %md
# MAGIC # What broke?
# MAGIC
# MAGIC On 22 July 2013 flights left LaGuardia hours late. In the week of 22 April they left late all over New York. Was
# MAGIC it the weather, the number of flights, delays dragged along since morning, or the airport itself?

# COMMAND ----------

import os
import tempfile

from pyspark.sql import SparkSession

from causal_spark import RootCauses
from causal_spark.examples import load_example

if "DATABRICKS_RUNTIME_VERSION" in os.environ:
    # Yours: a schema for the tables, and a folder that driver and workers share (docs/databricks.md).
    tables, work = "main.causal_spark", "/Volumes/main/causal_spark/scratch"
else:
    folder = os.environ.get("NOTEBOOK_FOLDER") or tempfile.mkdtemp()
    tables, work = f"{folder}/root_causes", f"{folder}/work"

spark = SparkSession.builder.getOrCreate()
look = globals().get("display", print)

hours = spark.createDataFrame(load_example("flights"))
incidents = "day IN (DATE '2013-03-08', DATE '2013-07-22', DATE '2013-12-05')"
furlough = "day BETWEEN DATE '2013-04-22' AND DATE '2013-04-26'"

# COMMAND ----------

# MAGIC %md
# MAGIC ## What we hold to cause what
# MAGIC The graph is the assumption. Everything else is learned from ordinary hours.

# COMMAND ----------

graph = [
    ("hour", "flights"),
    ("hour", "wind_speed"),
    ("precipitation", "visibility"),
    *((cause, "earlier_delay") for cause in ("hour", "flights", "precipitation", "visibility", "wind_speed")),
    *((cause, "departure_delay") for cause in ("hour", "flights", "precipitation", "visibility", "wind_speed")),
    ("earlier_delay", "departure_delay"),
]
causes = RootCauses(graph=graph, target="departure_delay", min_score=4.6, replicates=10, seed=13).fit(
    hours.where(f"NOT ({incidents} OR {furlough})"),
    hours.where(incidents),
    changed=hours.where(furlough),
    event_id="departure_hour",
    groups=["airport"],
    work_location=work,
)
worst = causes.root_causes.where("airport = 'LGA' AND event_id = '2013-07-22 18h'")
look(worst.select("node", "contribution", "conf_low", "conf_high", "evidence").orderBy("place").toPandas().round(2))

# COMMAND ----------

# MAGIC %md
# MAGIC ## One hour
# MAGIC Twenty minutes before, the nose gear of a landing aeroplane had collapsed on a runway of LaGuardia. No row of
# MAGIC the table says so, and yet neither weather nor demand is blamed.

# COMMAND ----------

picture = causes.plot("root_cause_graph", group={"airport": "LGA"}, event_id="2013-07-22 18h")
look(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC ## One week
# MAGIC In that week of April air traffic controllers were on furlough.

# COMMAND ----------

picture = causes.plot(
    "distribution_changes", group={"airport": "LGA"}, functional="mean", target="departure delay (min)"
)
look(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Can the graph be believed?
# MAGIC Residuals of each mechanism should be independent of its causes. Where they are not, the table says so.

# COMMAND ----------

look(causes.graph_diagnostics.where("airport = 'LGA'").drop("run_id", "group_id").toPandas())

# COMMAND ----------

# MAGIC %md
# MAGIC ## What to decide
# MAGIC Both times the departures' own mechanism changed: look at runways and staff, not at the forecast.

# COMMAND ----------

written = causes.write(tables, spark=spark)
look(f"Run {written.run_id} is in {written.location}")
