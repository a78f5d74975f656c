"""Root causes: ``spark-submit jobs/root_causes.py --config conf/root_causes.yaml``."""

import sys

from causal_spark.root_causes_job import ROOT_CAUSES

if __name__ == "__main__":
    sys.exit(ROOT_CAUSES.main(sys.argv[1:]))
