"""Standard errors on Proposition 99 beside the published ones and other packages' (``make study-prop99``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.machine import SINGLE_THREAD, origin
from causal_spark.errors import GroupError
from causal_spark.examples import load_example
from causal_spark.panel.inference import interval
from causal_spark.panel.registry import ESTIMATORS, VARIANCES
from causal_spark.panel.replicates import Replicates, Setting
from causal_spark.panel.summary import att
from causal_spark.panel.types import Panel
from studies.designs import seed_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "studies" / "results"
PEERS = ROOT / ".venv-bench" / "bin" / "python"
NAMES = ("did", "sc", "difp", "mc", "sdid", "dwcp")
#: Arkhangelsky et al. (2021), table 1: placebo standard errors.
PUBLISHED = {"did": 17.7, "sc": 9.9, "sdid": 8.4, "difp": 9.5, "mc": 11.5}
_SEED = 1


def proposition_99() -> Panel:
    """Cigarette packs of 39 states, 1970 to 2000, California last and treated from 1989."""
    table = load_example("policies")
    table = table[table["source"] == "prop99"]
    outcome = table.pivot_table(index="unit", columns="year", values="outcome")
    treated = table.pivot_table(index="unit", columns="year", values="treated").to_numpy() > 0
    order = np.argsort(treated.any(axis=1), kind="stable")
    values = outcome.to_numpy(np.float64)[order]
    return Panel(
        values, treated[order], np.isfinite(values), outcome.index.to_numpy()[order], outcome.columns.to_numpy()
    )


def ours(panel: Panel) -> list[dict[str, object]]:
    """A row per estimator and variance; no standard error where it is declined."""
    rows: list[dict[str, object]] = []
    for name in NAMES:
        definition = ESTIMATORS[name]
        options = definition.options()
        fit = definition.fit(panel, options, None, _SEED)
        estimate = att(panel, fit)
        setting = Setting(panel, definition, options, fit, partial(seed_of, _SEED))
        replicates = Replicates(setting)
        for variance, known in VARIANCES.items():
            row: dict[str, object] = {"source": "causal_spark", "estimator": name, "variance": variance}
            row |= {"estimate": estimate}
            try:
                found = known.estimate(setting, known.options(), replicates)
            except GroupError as error:
                rows.append(row | {"declined": type(error).__name__})
                continue
            around = interval(estimate, found.att.std_error, found.att.df)
            row |= {"std_error": found.att.std_error, "df": found.att.df, "n_replicates": found.n_replicates}
            row |= {"conf_low": around.conf_low, "conf_high": around.conf_high, "p_value": around.p_value}
            rows.append(row | {"permutation_p_value": found.permutation_p_value})
    return rows


def peers(panel: Panel) -> list[dict[str, object]]:
    """Placebo standard errors of the packages in the benchmarks' environment."""
    n_pre = int(panel.treated.any(axis=0).argmax())
    answer = subprocess.run(  # noqa: S603
        [str(PEERS), str(Path(__file__).with_name("prop99_peers.py")), str(n_pre)],
        input=json.dumps(panel.outcome.tolist()),
        capture_output=True,
        text=True,
        check=True,
    )
    return [
        {"source": source, "estimator": name, "variance": "placebo", "std_error": error, "n_replicates": n}
        for source, found in json.loads(answer.stdout).items()
        for name, (error, n) in found.items()
    ]


def main() -> None:
    """Write ``prop99_variances.csv``."""
    os.environ.update(SINGLE_THREAD)
    here = origin()
    panel = proposition_99()
    published = [
        {"source": "published", "estimator": name, "variance": "placebo", "std_error": error}
        for name, error in PUBLISHED.items()
    ]
    table = pd.DataFrame([*ours(panel), *published, *peers(panel)])
    RESULTS.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(RESULTS / "prop99_variances.csv", index=False)
    (RESULTS / "prop99_variances_run.json").write_text(
        json.dumps(here | {"command": "python -m studies.prop99", "seed": _SEED}, indent=1) + "\n"
    )
    sys.stdout.write(table.round(3).to_string(index=False) + "\n")


if __name__ == "__main__":
    main()
