"""One task by one library in one process: a request as JSON on the command line, answers as lines of JSON.

``{"ready": true}`` when imports, warm-up and the fits to be judged are over and the clock starts; then one line per run
with its CPU and wall seconds; then the answer. Fits to be judged go to the file the request names: before the clock
starts when the penalties are given, so that a library that is cut off is judged too, else at the penalties it chose.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.dwcp_cases import DwcpCase, Triple
from benchmarks.dwcp_libraries import LIBRARIES, Answer, Library

_SHORTEST = 0.2


def main() -> None:
    """Do what the request says."""
    request = json.loads(sys.argv[1])
    answers = sys.stdout
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):
        for line in _lines(request):
            print(json.dumps(line), file=answers, flush=True)


def _lines(request: dict[str, Any]) -> Any:
    with np.load(request["panel"]) as arrays:
        case = DwcpCase(arrays["outcome"], arrays["treated"])
    make = LIBRARIES[request["library"]]
    library, small = make(case), make(case.corner())
    triple: Triple | None = tuple(request["triple"]) if request["triple"] else None  # type: ignore[assignment]

    def run(asked: Library) -> Answer:
        return asked.tune(request["how"]) if triple is None else asked.score(triple)

    # One small fit: a small search takes some of them minutes.
    small.cell(case.corner().judged_cells()[0], triple or (0.1, 0.1, 1.0))
    if triple is not None:
        _keep(library, case, triple, request["solution"])
    yield {"ready": True}
    answer, used, done = Answer(), 0.0, 0
    while done < request["runs"] and (done == 0 or used < request["budget"]):
        repeats, cpu, wall = 0, 0.0, 0.0
        while wall < _SHORTEST:
            cpu_before, wall_before = time.process_time(), time.perf_counter()
            answer = run(library)
            wall += time.perf_counter() - wall_before
            cpu += time.process_time() - cpu_before
            repeats += 1
        each = repeats * (library.scorings if triple else 1)
        yield {"cpu": cpu / each, "wall": wall / each}
        used, done = used + wall, done + 1
    if triple is None and answer.triple is not None:
        _keep(library, case, answer.triple, request["solution"])
    yield asdict(answer)


def _keep(library: Library, case: DwcpCase, triple: Triple, path: str) -> None:
    fits = [library.cell(cell, triple) for cell in case.judged_cells()]
    np.savez(
        path,
        predicted=[fit.predicted for fit in fits],
        weights=[fit.weights for fit in fits],
        at_cell=[fit.at_cell for fit in fits],
    )


if __name__ == "__main__":
    main()
