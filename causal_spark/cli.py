"""The command ``causal-spark``: every job, upkeep, and a look at results without Spark."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from causal_spark.errors import CausalSparkError

_JOBS = {
    "panel-effects": "effects of policies on panels, with standard errors",
    "estimator-study": "which estimator and which error bar to trust on your panels",
    "response-curves": "mean outcomes at every level of a continuous treatment",
    "individual-effects": "effects of several treatments on every row, and the arm to choose",
    "root-causes": "which node of a causal graph made an outlier extreme, or a distribution change",
}
_EPILOG = """\
First steps:
  causal-spark panel-effects --config conf/panel_effects.yaml --dry-run   what a run would do, and what it costs
  causal-spark panel-effects --config conf/panel_effects.yaml             run it; conf/*.yaml documents every key
  causal-spark show ./output/panel_effects                                look at the latest results, without Spark

`causal-spark COMMAND --help` tells the options of a command. On a cluster, give jobs/*.py to spark-submit instead.
"""
#: What a local session needs for Delta, where nobody has configured Spark.
_LOCAL = {
    "spark.jars.packages": "io.delta:delta-spark_4.2_2.13:4.4.0",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.showConsoleProgress": "false",
}
_CONFIGURED = ("SPARK_CONF_DIR", "PYSPARK_SUBMIT_ARGS", "SPARK_REMOTE", "DATABRICKS_RUNTIME_VERSION", "SPARK_HOME")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="causal-spark",
        description="Causal effects where the data lives: estimates into Delta tables.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, says in _JOBS.items():
        commands.add_parser(name, help=says, add_help=False)
    commands.add_parser("upkeep", help="remove rows that nobody sees, compact and vacuum tables", add_help=False)
    looking = commands.add_parser("show", help="print the latest results and failures of a folder, without Spark")
    looking.add_argument("folder", help="where a job wrote its tables")
    looking.add_argument("--table", help="print the latest rows of this table only")
    looking.add_argument("--rows", type=int, default=20, help="rows of each table to print (20)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    known, rest = _parser().parse_known_args(given)
    if known.command == "show":
        from causal_spark.show import show

        _parser().parse_args(given)
        try:
            sys.stdout.write(show(known.folder, table=known.table, n_rows=known.rows))
        except CausalSparkError as error:
            sys.stderr.write(f"{error}\n")
            return 3
        return 0
    if not any(os.environ.get(name) for name in _CONFIGURED):
        settings = " ".join(f"--conf {key}={value}" for key, value in _LOCAL.items())
        os.environ["PYSPARK_SUBMIT_ARGS"] = f"{settings} pyspark-shell"
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if known.command == "upkeep":
        from causal_spark.upkeep_job import main as upkeep

        return upkeep(rest)
    from causal_spark.jobs import load_job

    return load_job(known.command.replace("-", "_")).main(rest)


def command() -> None:
    """What the console script runs, and wheel tasks, which call it and do not look at what it returns: it exits where
    the exit code is not 0.
    """
    code = main()
    if code:
        sys.exit(code)


if __name__ == "__main__":
    command()
