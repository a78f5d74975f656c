"""Tables that every job writes: attempts, and what went wrong in them."""

from __future__ import annotations

from causal_spark.lake.contract import Column, TableSchema, count, text

RUNS = TableSchema(
    "runs",
    "attempt",
    (
        text("run_key", "Hash of input version, configuration and code version, or the user's own key."),
        text("job", "Job that ran."),
        text("status", "Whether the attempt's rows may be shown.", one_of=("succeeded", "failed")),
        Column("started_at", "TIMESTAMP", "Start of the attempt (UTC).", required=True),
        Column("finished_at", "TIMESTAMP", "End of the attempt (UTC); the newest succeeded one per run_key counts."),
        text("config_json", "Configuration as run, JSON."),
        text("input", "Where the input was read."),
        text("input_version", "Version or fingerprint of the input."),
        text("package_version", "Version of causal_spark."),
        Column("contract_version", "INT", "Version of this table contract.", required=True),
        count("n_groups", "Groups in the input."),
        count("n_succeeded", "Groups with at least one estimate and nothing failed."),
        count("n_declined", "Groups without any estimate because every method declined."),
        count("n_failed", "Groups in which something failed."),
        count("rows_read", "Input rows read."),
        count("rows_written", "Rows this attempt appended to result tables, runs excluded."),
        text("seconds_by_estimator", "JSON object: worker seconds per estimator, its variances included."),
        Column("seed", "BIGINT", "Seed of the run.", required=True),
        text("series", "Name of the analysis: of its runs, the newest succeeded one is the latest.", required=False),
    ),
    keyed=False,
    has_group_columns=False,
)

FAILURES = TableSchema(
    "failures",
    "group, stage, estimator, error_class",
    (
        text("stage", "Where it happened: read, estimate or variance:<name>."),
        text("estimator", "Estimator concerned; NULL when the whole group is.", required=False),
        text("job", "Job that ran."),
        text(
            "kind",
            "declined: the method has no meaning on this group; failed: something went wrong; "
            "warned: there is an estimate, and this is what to know of it.",
            one_of=("declined", "failed", "warned"),
        ),
        text("error_class", "Class of the error, or name of the warning."),
        text("message", "What is wrong, or what to know."),
        text("hint", "What to do about it."),
        count("n_rows", "Input rows of the group."),
    ),
    has_group_columns=False,
)
