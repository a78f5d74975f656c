"""Upkeep of result tables: ``spark-submit jobs/upkeep.py --config conf/upkeep.yaml``."""

import sys

from causal_spark.upkeep_job import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
