"""What a user without Spark would write: read, loop over panels, estimate, keep the ATT. One process, one thread."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pandas as pd

from causal_spark.panel.registry import ESTIMATORS
from causal_spark.panel.types import Panel


def main() -> None:
    """Arguments: the input folder, the output file, estimators. Prints the seconds of reading and of the loop."""
    source, target, *names = sys.argv[1:]
    began = time.perf_counter()
    rows = pd.read_parquet(source)
    read = time.perf_counter()
    found: dict[str, list[object]] = {"panel": [], "estimator": [], "estimate": []}
    for label, part in rows.groupby("panel"):
        outcome = part.pivot_table(index="unit", columns="period", values="outcome")
        treated = part.pivot_table(index="unit", columns="period", values="treated").to_numpy() == 1
        values = outcome.to_numpy()
        panel = Panel(values, treated, np.isfinite(values), outcome.index.to_numpy(), outcome.columns.to_numpy())
        for name in names:
            definition = ESTIMATORS[name]
            fit = definition.fit(panel, definition.options(), None, 0)
            estimate = np.nanmean((values - fit.counterfactual)[treated])
            for column, value in zip(found, (label, name, float(estimate)), strict=True):
                found[column].append(value)
    done = time.perf_counter()
    pd.DataFrame(found).to_parquet(target)
    print(json.dumps({"read": read - began, "loop": done - read}))


if __name__ == "__main__":
    main()
