"""Mean outcomes by dose: ``spark-submit jobs/response_curves.py --config conf/response_curves.yaml``."""

import sys

from causal_spark.response_curves_job import RESPONSE_CURVES

if __name__ == "__main__":
    sys.exit(RESPONSE_CURVES.main(sys.argv[1:]))
