# Databricks notebook source
# MAGIC %md
# MAGIC # How much weight goes with how many cigarettes?
# MAGIC
# MAGIC 1,629 smokers, asked in 1971 and weighed again around 1982. Those who smoked more differ in age, sex, schooling,
# MAGIC and what they weighed to begin with, so a plain curve of weight change over cigarettes mixes all of it.
# MAGIC Balancing weights make the doses comparable; the curve that is left is the mean outcome *had everybody smoked so
# MAGIC many*.

# COMMAND ----------

import os
import tempfile

from pyspark.sql import SparkSession

from causal_spark import ResponseCurves
from causal_spark.examples import EXAMPLES, load_example

if "DATABRICKS_RUNTIME_VERSION" in os.environ:
    # Yours: a schema for the tables, and a folder that driver and workers share (docs/databricks.md).
    tables, work = "main.causal_spark", "/Volumes/main/causal_spark/scratch"
else:
    folder = os.environ.get("NOTEBOOK_FOLDER") or tempfile.mkdtemp()
    tables, work = f"{folder}/response_curves", f"{folder}/work"

spark = SparkSession.builder.getOrCreate()
look = globals().get("display", print)

people = load_example("smoking")
smokers = spark.createDataFrame(people[people["outcome_name"] == "weight_change"])

# COMMAND ----------

# MAGIC %md
# MAGIC ## Curves, men and women apart
# MAGIC `unweighted` is the plain curve; `e2b` trains a network to give weights that balance what outcomes of many
# MAGIC made-up shapes would need.

# COMMAND ----------

roles = {name: list(role) if isinstance(role, tuple) else role for name, role in EXAMPLES["smoking"].roles.items()}
curves = ResponseCurves(estimators=["unweighted", "e2b"], second_stage={"name": "spline", "n_knots": 5}, seed=71).fit(
    smokers, **roles | {"groups": ["sex"]}, grid=[5, 10, 15, 20, 25, 30, 35, 40], work_location=work
)

columns = ["sex", "dose", "estimate", "std_error", "conf_low", "conf_high"]
look(curves.curves.where("estimator = 'e2b'").select(*columns).orderBy("sex", "dose").toPandas().round(2))

# COMMAND ----------

labels = {"outcome": "Weight change (kg)", "dose": "Cigarettes per day"}
picture = curves.plot("response_curves", group={"sex": "female"}, **labels)
look(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Can the curves be believed?
# MAGIC As far as covariates are balanced: correlations with the dose should be near zero after weighting. What nobody
# MAGIC measured no weight can balance.

# COMMAND ----------

picture = curves.plot("balance", group={"sex": "female"})
look(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What to decide
# MAGIC The bands are wide, and at the edge, where few people are, they say so. Read the slope of the balanced curve
# MAGIC against its band before anybody advises on it; where the plain curve and the balanced ones differ, the
# MAGIC difference is who smokes how much, not what smoking does.

# COMMAND ----------

written = curves.write(tables, spark=spark)
look(f"Run {written.run_id} is in {written.location}")
