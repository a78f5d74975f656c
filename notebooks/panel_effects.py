# Databricks notebook source
# MAGIC %md
# MAGIC # Did a tax on cigarettes make people smoke less?
# MAGIC
# MAGIC In November 1988 California voted for Proposition 99: 25 cents more on a pack, and the money for campaigns
# MAGIC against smoking. Sales fell. They fell elsewhere, too, so what would California have smoked **without** the law?
# MAGIC
# MAGIC 39 states, 1970 to 2000, packs sold per head. Six estimators answer, each with two error bars.

# COMMAND ----------

import os
import tempfile

from pyspark.sql import SparkSession

from causal_spark import PanelEffects
from causal_spark.examples import load_example

if "DATABRICKS_RUNTIME_VERSION" in os.environ:
    # Yours: a schema for the tables, and a folder that driver and workers share (docs/databricks.md).
    tables, work = "main.causal_spark", "/Volumes/main/causal_spark/scratch"
else:
    folder = os.environ.get("NOTEBOOK_FOLDER") or tempfile.mkdtemp()
    tables, work = f"{folder}/panel_effects", f"{folder}/work"

spark = SparkSession.builder.getOrCreate()
look = globals().get("display", print)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The data
# MAGIC One row per state and year. `treated` is 1 for California from 1989 on.

# COMMAND ----------

policies = load_example("policies")
states = spark.createDataFrame(policies[policies["source"] == "prop99"])
look(states.where("unit = 'California' AND year BETWEEN 1986 AND 1991").toPandas())

# COMMAND ----------

# MAGIC %md
# MAGIC ## Six estimators
# MAGIC They share the idea, predict California's untreated years from the other states, and differ in what they trust:
# MAGIC parallel trends (`did`), a weighted average of states (`sc`), the same up to a constant (`difp`), a low-rank
# MAGIC matrix (`mc`), weighted states *and* years (`sdid`), all of it together (`dwcp`).

# COMMAND ----------

effects = PanelEffects(
    estimators=["did", "sc", "difp", "mc", "sdid", "dwcp"],
    variances=["placebo", "unit_time"],
    cells="all",
    seed=99,
).fit(states, unit="unit", time="year", outcome="outcome", treatment="treated", groups=["source"], work_location=work)
found = effects.effects.join(effects.variances.drop("run_id", "group_id", "source"), "estimator")
columns = ["estimator", "estimate", "variance_estimator", "std_error", "conf_low", "conf_high", "p_value"]
answer = found.select(*columns).orderBy("estimator", "variance_estimator").toPandas()
look(answer.round(2))

# COMMAND ----------

# MAGIC %md
# MAGIC All six say *fewer packs*, by 11 to 27 of about 100. How sure is that?
# MAGIC
# MAGIC The customary interval, `placebo`, treats other states as if they had had the law and sees how far off it is: it
# MAGIC averages over states, among them some whose sales are far more erratic than California's, and nearly always
# MAGIC holds zero. `unit_time` asks about **this** state in **these** years: how far off would we be for a state as
# MAGIC calm as California?
# MAGIC
# MAGIC `did` disagrees most. The picture shows why: before 1989 its prediction misses California by far.

# COMMAND ----------

picture = effects.plot("counterfactual", estimators=["did", "sdid"], outcome="Packs per head", time="Year")
look(picture)

# COMMAND ----------

picture = effects.plot("event_study", estimators=["did", "sdid"], outcome="Effect, packs per head")
look(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC Who stands in for California?

# COMMAND ----------

picture = effects.plot("weights", estimator="sdid")
look(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What to decide
# MAGIC Leave `did` aside: its trends are not parallel before the law. The others agree on 11 to 20 packs fewer per head
# MAGIC and year. Which of them deserves most trust on a panel like this one is a question with an answer: see the
# MAGIC notebook `estimator_study`.
# MAGIC
# MAGIC Keep what was found where others will look for it: all tables become visible in one commit.

# COMMAND ----------

written = effects.write(tables, spark=spark)
look(f"Run {written.run_id} is in {written.location}")
