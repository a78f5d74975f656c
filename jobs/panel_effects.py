"""Effects of policies on panels: ``spark-submit jobs/panel_effects.py --config conf/panel_effects.yaml``."""

import sys

from causal_spark.panel_effects_job import PANEL_EFFECTS

if __name__ == "__main__":
    sys.exit(PANEL_EFFECTS.main(sys.argv[1:]))
