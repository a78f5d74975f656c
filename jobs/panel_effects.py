"""Effects of policies on panels: ``spark-submit jobs/panel_effects.py --config conf/panel_effects.yaml``."""

import sys

from causal_spark.panel_effects_job import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
