"""The upkeep job: `jobs/upkeep.py`."""

from __future__ import annotations

import datetime as dt
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pyspark.sql import SparkSession

from causal_spark.command import command_parser, exit_code, session
from causal_spark.config import Strict, load_config
from causal_spark.engine.publish import new_run_id
from causal_spark.lake.locations import folder_address, output_location
from causal_spark.lake.upkeep import TableUpkeep, UpkeepOptions, upkeep

log = logging.getLogger("causal_spark")

NAME = "upkeep"
Days = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class UpkeepConfig(Strict):
    """Everything `jobs/upkeep.py` can be told; the shipped file documents each key."""

    location: str
    work_location: str | None = None
    retention_days: Days = 7.0
    superseded_after_days: Days | None = None
    optimize: bool = True
    vacuum: bool = True

    def options(self) -> UpkeepOptions:
        """The same for `causal_spark.lake.upkeep`."""
        superseded = self.superseded_after_days
        return UpkeepOptions(
            retention=dt.timedelta(days=self.retention_days),
            superseded=None if superseded is None else dt.timedelta(days=superseded),
            optimize=self.optimize,
            vacuum=self.vacuum,
        )


def old_scratch(folder: str, before: dt.datetime) -> list[Path]:
    """Scratch folders of runs in which nothing changed since then. Folders of other file systems are left alone."""
    if ":" in folder or not Path(folder).is_dir():
        return []
    return [
        run
        for run in sorted(Path(folder).iterdir())
        if run.is_dir() and max(path.stat().st_mtime for path in (run, *run.rglob("*"))) < before.timestamp()
    ]


def run_upkeep(spark: SparkSession, config: UpkeepConfig, *, dry_run: bool = False) -> str:
    """Keep the tables and the scratch folder, or only tell what there is to do: a text for people."""
    location = output_location(config.location)
    done = upkeep(spark, location, config.options(), dry_run=dry_run)
    lines = [_line(one) for one in done if one.run_ids] or ["No row that nobody sees."]
    folder = folder_address(config.work_location) if config.work_location is not None else None
    if folder is None and location.is_path:
        folder = location.table("_work").address
    left = old_scratch(folder, dt.datetime.now(dt.UTC) - config.options().retention) if folder else []
    if not dry_run:
        for run in left:
            shutil.rmtree(run, ignore_errors=True)
    lines += [f"Scratch of a run that died: {run}" for run in left]
    said = "Dry run: nothing was removed." if dry_run else "Removed."
    return "\n".join([*lines, said]) + "\n"


def _line(one: TableUpkeep) -> str:
    return f"{one.table}: {one.n_rows} rows of {len(one.run_ids)} runs that are not visible"


def main(arguments: Sequence[str]) -> int:
    """Run upkeep as the command line says and return its exit code."""
    parser = command_parser(NAME, "Remove rows that no visible run owns, compact tables, vacuum them.")
    options = parser.parse_args(arguments)

    def act() -> None:
        config = load_config(UpkeepConfig, options.config, options.set)
        sys.stdout.write(run_upkeep(session(NAME), config, dry_run=options.dry_run))

    return exit_code(act, NAME, new_run_id(), options.log_format)
