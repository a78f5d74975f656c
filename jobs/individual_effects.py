"""Effects on every row: ``spark-submit jobs/individual_effects.py --config conf/individual_effects.yaml``."""

import sys

from causal_spark.individual_effects_job import INDIVIDUAL_EFFECTS

if __name__ == "__main__":
    sys.exit(INDIVIDUAL_EFFECTS.main(sys.argv[1:]))
