"""All notebooks in one process on Spark Connect: ``all_notebooks.py FOLDER``, with ``SPARK_REMOTE`` set."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from causal_spark.jobs import JOB_NAMES
from tests.notebook_runs import run_notebook


def main() -> None:
    """Print, per notebook, how many things it displayed."""
    said = {}
    for name in JOB_NAMES:
        names, shown = run_notebook(name, Path(sys.argv[1]))
        assert "connect" in type(SparkSession.active()).__module__
        assert names["written"].new
        said[name] = len(shown)
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
