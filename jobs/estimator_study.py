"""Estimator study: ``spark-submit jobs/estimator_study.py --config conf/estimator_study.yaml``."""

import sys

from causal_spark.estimator_study_job import ESTIMATOR_STUDY

if __name__ == "__main__":
    sys.exit(ESTIMATOR_STUDY.main(sys.argv[1:]))
