"""Every job by name. What is added here is put through all suites that are about jobs (``tests/job_cases.py``)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from causal_spark.errors import ConfigError, did_you_mean
from causal_spark.job import Job

# By name only: some jobs want libraries that others do without.
_MODULES = {
    "panel_effects": "causal_spark.panel_effects_job",
    "estimator_study": "causal_spark.estimator_study_job",
    "response_curves": "causal_spark.response_curves_job",
    "individual_effects": "causal_spark.individual_effects_job",
    "root_causes": "causal_spark.root_causes_job",
}

JOB_NAMES = tuple(_MODULES)


def load_job(name: str) -> Job[Any]:
    """The job of that name. Raises `ConfigError` for an unknown one, ImportError where its libraries are not there."""
    if name not in _MODULES:
        raise ConfigError(f"Unknown job {name!r}.", did_you_mean(name, JOB_NAMES))
    job = getattr(import_module(_MODULES[name]), name.upper())
    assert isinstance(job, Job)  # noqa: S101 - for the type checker
    return job
