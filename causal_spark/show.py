"""The latest results of a folder of tables, read without Spark: ``causal-spark show FOLDER``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from causal_spark.errors import InputError, did_you_mean
from causal_spark.lake.schemas import TABLES
from causal_spark.lake.schemas.runs import FAILURES, RUNS

#: Variances from the one to prefer on, see docs/variances.md.
PREFERRED = ("unit_time", "placebo", "jackknife", "bootstrap", "marginal", "unit", "time")
#: Per job, the table people look at first, and what is left out of it.
_FIRST: dict[str, tuple[str, tuple[str, ...]]] = {
    "panel_effects": ("panel_effects", ()),
    "estimator_study": ("recommendations", ()),
    "response_curves": ("response_curves", ("conf_level", "n_replicates", "slope_std_error")),
    "individual_effects": ("arm_effects", ("conf_level",)),
    "root_causes": ("root_causes", ("conf_level", "score_floored")),
}
_OF_EFFECTS = ["estimator", "estimate", "std_error", "conf_low", "conf_high", "p_value", "variance_estimator"]


def read_table(folder: str, name: str, run_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """Rows of a table, of some runs or all. Raises `InputError` where there is none, or no reader installed."""
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError
    except ModuleNotFoundError as error:
        raise InputError("Reading tables without Spark needs deltalake.", "pip install deltalake") from error
    if name not in TABLES:
        raise InputError(f"There is no table {name!r}.", did_you_mean(name, TABLES))
    try:
        table = DeltaTable(f"{folder.rstrip('/')}/{name}")
    except TableNotFoundError as error:
        raise InputError(f"{folder} has no table {name}.", "Name the folder that a job wrote to.") from error
    frame: pd.DataFrame = table.to_pandas(filters=None if run_ids is None else [("run_id", "in", list(run_ids))])
    return frame


def latest_runs(folder: str) -> pd.DataFrame:
    """The newest succeeded run of each series, newest first. Raises as `read_table` does."""
    runs = read_table(folder, RUNS.name)
    done = runs[runs["status"] == "succeeded"].sort_values(["finished_at", "run_id"], ascending=False)
    series = done["series"].fillna(done["run_key"]) if "series" in done else done["run_key"]
    return done.assign(series=series).drop_duplicates(["job", "series"], ignore_index=True)


def latest(folder: str, name: str) -> pd.DataFrame:
    """Rows of a table that belong to the latest runs. Raises as `read_table` does."""
    return read_table(folder, name, latest_runs(folder)["run_id"].tolist())


def effects_with_errors(folder: str, run_ids: Sequence[str]) -> pd.DataFrame:
    """Panel effects of some runs, each with the error bar to prefer of those it has."""
    keys = ["run_id", "group_id", "estimator"]
    effects = read_table(folder, "panel_effects", run_ids)
    errors = read_table(folder, "panel_variances", run_ids)
    rank = {name: place for place, name in enumerate(PREFERRED)}
    errors = errors[errors["std_error"].notna()].assign(rank=lambda one: one["variance_estimator"].map(rank))
    best = errors.sort_values("rank").drop_duplicates(keys)
    bars = best[[*keys, "variance_estimator", "std_error", "conf_low", "conf_high", "p_value"]]
    groups = list(effects.columns[2 : effects.columns.get_loc("estimator")])
    return effects.merge(bars, on=keys, how="left")[["group_id", *groups, *_OF_EFFECTS]]


def shown(table: pd.DataFrame, n_rows: int) -> str:
    """The first rows of a table, for people."""
    head = table.head(n_rows).to_string(index=False, na_rep="-", float_format=lambda value: f"{value:,.4g}")
    more = len(table) - n_rows
    return head if more <= 0 else f"{head}\n... and {more} more rows"


def show(folder: str, *, table: str | None = None, n_rows: int = 20) -> str:
    """What a folder holds, as text: the latest runs, their first results, and what failed; or the latest rows of one
    table.

    Raises `InputError` where there is no such table.
    """
    folder = folder if ":" in folder else str(Path(folder).expanduser().absolute())
    if table is not None:
        return shown(latest(folder, table), n_rows) + "\n"
    runs = latest_runs(folder)
    if runs.empty:
        return "No run has succeeded here yet.\n"
    parts = []
    for job, ours in runs.groupby("job", sort=False):
        ids = ours["run_id"].tolist()
        columns = ["run_id", "finished_at", "n_groups", "n_succeeded", "n_declined", "n_failed", "input"]
        parts.append(f"{job}: latest of {len(ours)} series\n{shown(ours[columns], n_rows)}")
        parts.append(_results(folder, str(job), ids, n_rows))
        failures = read_table(folder, FAILURES.name, ids)
        failures = failures[failures["kind"] != "warned"].sort_values(["kind", "group_id"], ascending=[False, True])
        if len(failures):
            told = failures[["group_id", "estimator", "stage", "kind", "message", "hint"]]
            parts.append(f"Declined or failed:\n{shown(told, n_rows)}")
    return "\n\n".join(parts) + "\n"


def _results(folder: str, job: str, run_ids: Sequence[str], n_rows: int) -> str:
    name, left_out = _FIRST[job]
    if job == "panel_effects":
        rows = effects_with_errors(folder, run_ids)
    else:
        rows = read_table(folder, name, run_ids).drop(columns=["run_id", *left_out])
    keys = [column for column in rows.columns[1:] if rows[column].dtype == object]
    ordered = rows.sort_values(keys or list(rows.columns[:1]), kind="stable").drop(columns="group_id")
    return f"{name}:\n{shown(ordered, n_rows)}"
