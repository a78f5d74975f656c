"""One library in one process: reads requests, one JSON object a line, fits, and answers in the same way.

A request names the panel's file, the estimator and the file for the solution. The answer has CPU and wall seconds of
one fit; fits too short for the clock are repeated and averaged. An empty answer follows when the solution is written.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.cases import Case
from benchmarks.libraries import LIBRARIES

_SHORTEST = 0.02


def main() -> None:
    """Serve until the requests end."""
    prepare, _ = LIBRARIES[sys.argv[1]]
    answers = sys.stdout
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        request = json.loads(line)
        with np.load(request["panel"]) as arrays:
            case = Case(arrays["outcome"], int(arrays["n_treated"]), int(arrays["n_post"]))
        # Libraries print; answers must stay alone on their stream.
        with contextlib.redirect_stdout(sys.stderr):
            fit, read = prepare(case, request["estimator"])
            repeats, cpu, wall, answer = 0, 0.0, 0.0, None
            while wall < _SHORTEST:
                cpu_before, wall_before = time.process_time(), time.perf_counter()
                answer = fit()
                wall += time.perf_counter() - wall_before
                cpu += time.process_time() - cpu_before
                repeats += 1
        print(json.dumps({"cpu": cpu / repeats, "wall": wall / repeats}), file=answers, flush=True)
        # Taking an answer apart may take refits, which no clock sees.
        if request["solution"]:
            with contextlib.redirect_stdout(sys.stderr):
                solution = read(answer)
            seen = {name: value for name, value in vars(solution).items() if value is not None}
            np.savez(request["solution"], **seen)
        print("{}", file=answers, flush=True)


if __name__ == "__main__":
    main()
