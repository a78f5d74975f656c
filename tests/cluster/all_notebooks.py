"""All notebooks in one process on Spark Connect: ``all_notebooks.py FOLDER``, with ``SPARK_REMOTE`` set."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from causal_spark.jobs import JOB_NAMES
from tests.notebook_runs import check_notebook


def main() -> None:
    """Print the names of those that hold what they say."""
    for name in JOB_NAMES:
        check_notebook(name, Path(sys.argv[1]))
        assert "connect" in type(SparkSession.active()).__module__
    sys.stdout.write(json.dumps(JOB_NAMES) + "\n")


if __name__ == "__main__":
    main()
