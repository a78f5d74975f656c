"""Starts a Spark session with the job's settings and ends."""

from pyspark.sql import SparkSession

if __name__ == "__main__":
    SparkSession.builder.getOrCreate().stop()
