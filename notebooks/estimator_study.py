# Databricks notebook source
# MAGIC %md
# MAGIC # Which estimator, and which error bar, should we believe here?
# MAGIC
# MAGIC On Proposition 99 the estimators say 11 to 27 packs. They cannot all be right, and no textbook knows which one
# MAGIC is right on *this* panel. So ask the panel: fit a model to its untreated outcomes, draw panels from it in which
# MAGIC nothing happened, let every estimator look for an effect, and see who finds the least.

# COMMAND ----------

import os
import tempfile

from pyspark.sql import SparkSession

from causal_spark import EstimatorStudy
from causal_spark.examples import load_example

if "DATABRICKS_RUNTIME_VERSION" in os.environ:
    # Yours: a schema for the tables, and a folder that driver and workers share (docs/databricks.md).
    tables, work = "main.causal_spark", "/Volumes/main/causal_spark/scratch"
else:
    folder = os.environ.get("NOTEBOOK_FOLDER") or tempfile.mkdtemp()
    tables, work = f"{folder}/estimator_study", f"{folder}/work"

spark = SparkSession.builder.getOrCreate()
look = globals().get("display", print)

policies = load_example("policies")
states = spark.createDataFrame(policies[policies["source"] == "prop99"])

# COMMAND ----------

# MAGIC %md
# MAGIC ## The study
# MAGIC `calibrated` draws are like the panel as the model sees it; in `heteroskedastic` ones states and years are as
# MAGIC noisy, each by itself, as they look. All estimators see the same panels. Two hundred draws keep this notebook
# MAGIC short; decide on a thousand.

# COMMAND ----------

study = EstimatorStudy(
    estimators=["did", "sc", "difp", "sdid"],
    variances=[{"name": "placebo", "replicates": 40}, {"name": "unit_time", "replicates": 40}],
    designs=["calibrated", "heteroskedastic"],
    replicates=100,
    seed=99,
).fit(states, unit="unit", time="year", outcome="outcome", treatment="treated", groups=["source"], work_location=work)

places = study.estimators.select("design", "estimator", "rmse", "rmse_mc_error", "bias", "best_or_tied")
look(places.orderBy("design", "rmse").toPandas().round(2))

# COMMAND ----------

picture = study.plot("estimator_race")
look(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Error bars
# MAGIC An interval of 95% should hold the truth in 95% of the draws, in quiet states and in noisy ones. Draws are
# MAGIC sorted into quarters by how noisy the treated cells truly are.

# COMMAND ----------

picture = study.plot("coverage_and_power", estimator="sdid", design="heteroskedastic", outcome="packs per head")
look(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What to decide
# MAGIC The study says it in a sentence, with its reason.

# COMMAND ----------

recommended = study.recommendations.select("estimator", "variance_estimator", "reason").first()
look(recommended["reason"])
written = study.write(tables, spark=spark)
look(f"Run {written.run_id} is in {written.location}")
