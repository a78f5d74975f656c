"""What the command lines of all jobs have in common: options, log, exit codes."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable

from pyspark.sql import SparkSession

from causal_spark.errors import (
    CausalSparkError,
    ConfigError,
    InputError,
    LocationError,
    TableShapeError,
    TooManyFailuresError,
    WriteError,
)
from causal_spark.logs import LOG_FORMATS, about, logged

log = logging.getLogger("causal_spark")

#: Exit codes; 1 is left to what nobody foresaw.
EXIT_CODES: dict[type[CausalSparkError], int] = {
    ConfigError: 2,
    LocationError: 2,
    InputError: 3,
    TooManyFailuresError: 4,
    TableShapeError: 5,
    WriteError: 5,
}

_EPILOG = """\
Examples:
  --config conf/{name}.yaml --dry-run                  see what would be done
  --config mine.yaml --set seed=7 --set output.location=./results   override single keys, values in YAML
  --config mine.yaml --log-format json                 for those who collect log lines

Exit codes: 0 done or nothing to do, 2 configuration, 3 input, 4 too many groups failed, 5 tables could not be written,
1 anything else.
"""


def command_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options that every job has."""
    parser = argparse.ArgumentParser(
        prog=name,
        description=description,
        epilog=_EPILOG.format(name=name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help=f"YAML file; conf/{name}.yaml documents every key")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key (repeatable)")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done; do nothing")
    parser.add_argument("--log-format", choices=LOG_FORMATS, default="text", help="of log lines, on stderr")
    return parser


def session(job: str) -> SparkSession:
    """The session a job runs in: spark-submit's, the notebook's, or a new one."""
    return SparkSession.builder.appName(f"causal_spark {job.replace('_', ' ')}").getOrCreate()


def exit_code(action: Callable[[], None], job: str, run_id: str, log_format: str) -> int:
    """Run a job's action, log what it says and what stopped it, and return its exit code."""
    with logged(log_format), about(job=job, run_id=run_id):
        try:
            action()
        except CausalSparkError as error:
            log.error("%s: %s", type(error).__name__, error, extra={"event": "stopped"})
            return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)
        except Exception:
            # The page of a traceback that follows has no run id.
            log.error("stopped by what nobody foresaw: see the traceback", extra={"event": "stopped"})
            raise
    return 0
