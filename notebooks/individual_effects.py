# Databricks notebook source
# MAGIC %md
# MAGIC # Whom to offer how much?
# MAGIC
# MAGIC In Malawi, 2,834 people who had been tested for HIV drew at random what they would be paid for coming to learn
# MAGIC the result: nothing, up to a dollar, up to two, up to three. Many do not come unpaid. Money is short: who should
# MAGIC be offered what?

# COMMAND ----------

import os
import tempfile

from pyspark.sql import SparkSession

from causal_spark import IndividualEffects, score
from causal_spark.examples import load_example

if "DATABRICKS_RUNTIME_VERSION" in os.environ:
    # Yours: a schema for the tables, and a folder that driver and workers share (docs/databricks.md).
    tables, work = "main.causal_spark", "/Volumes/main/causal_spark/scratch"
else:
    folder = os.environ.get("NOTEBOOK_FOLDER") or tempfile.mkdtemp()
    tables, work = f"{folder}/individual_effects", f"{folder}/work"

spark = SparkSession.builder.getOrCreate()
look = globals().get("display", print)

people = spark.createDataFrame(load_example("hiv_results"))
look(people.groupBy("incentive").avg("learned_result").orderBy("incentive").toPandas().round(3))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Effects, and what they cost
# MAGIC An arm costs what is paid, to those who come. One more person who learns the result is put at one dollar here;
# MAGIC change that to what it is worth to you.

# COMMAND ----------

effects = IndividualEffects(estimators=["memento"], control="none", seed=4).fit(
    people,
    row_id="person",
    treatment="incentive",
    outcome="learned_result",
    covariates=["age", "distance", "hiv"],
    costs={"under_1": 0.05, "1_to_2": 0.16, "over_2": 0.25},
    work_location=work,
)
columns = ["treatment", "estimate", "std_error", "conf_low", "conf_high"]
means = effects.arm_effects.where("reference = 'none'")
look(means.select(*columns).orderBy("estimate").toPandas().round(3))

# COMMAND ----------

picture = effects.plot("arm_effects", outcome="Share that comes, more than unpaid")
look(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC Incentives work, and the first dollar does most of it. Does it pay to treat people differently?

# COMMAND ----------

picture = effects.plot("policy_values")
look(picture)

# COMMAND ----------

look(effects.policies.groupBy("recommended_treatment").count().toPandas())

# COMMAND ----------

# MAGIC %md
# MAGIC ## What to decide
# MAGIC Compare the policy with the best single arm: where their intervals overlap, give everybody the same and keep the
# MAGIC matter simple. The models are stored with the tables, and score the people of the next village without another
# MAGIC fit.

# COMMAND ----------

# The next village: the first twenty again, as if they were new.
newcomers = people.limit(20).drop("incentive", "learned_result")
offers = score(effects.models, newcomers, row_id="person", what="policies")
look(offers.select("row_id", "recommended_treatment").toPandas().head())

# COMMAND ----------

written = effects.write(tables, spark=spark)
look(f"Run {written.run_id} is in {written.location}")
