"""Training of end-to-end balancing on many segments at once, beside a loop over them, in CPU seconds of one thread.

Both are the same function with the same numbers; the loop hands it one segment at a time. Segment k is a draw of design
L1 or VG in turn, with five covariates and seed k; the second stage is a spline for all, as a stack has one kind.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.machine import RESULTS, SINGLE_THREAD, append_rows, origin

if TYPE_CHECKING:
    from causal_spark.dose_response.e2b_options import E2bOptions
    from causal_spark.dose_response.types import CurveProblem, Weighting

DESIGNS = ("L1", "VG")
_N_GRID = 21
#: Until patience runs out three times no segment may stop, so that all take the same number of steps.
_MOST_STEPS = 119


@dataclass(frozen=True, slots=True)
class Case:
    """Segments of one number of rows."""

    n_segments: int
    n_rows: int

    @classmethod
    def parse(cls, text: str) -> Case:
        """Such as 64x500."""
        return cls(*map(int, text.split("x")))

    def __str__(self) -> str:
        return f"{self.n_segments}x{self.n_rows}"


def problem_of(design: str, n_rows: int, seed: int) -> CurveProblem:
    """One segment with its second stage."""
    from causal_spark.dose_response.second_stage import StageOptions, curve_problem
    from causal_spark.dose_response.types import Segment
    from studies.dose_designs import DESIGNS as ALL

    drawn = ALL[design].draw(n_rows, np.random.default_rng(seed))
    names = tuple(f"x{k}" for k in range(drawn.covariates.shape[1]))
    segment = Segment(drawn.covariates, drawn.treatment, np.full(n_rows, 1.0 / n_rows), names)
    grid = np.linspace(*np.quantile(drawn.treatment, (0.05, 0.95)), _N_GRID)
    return curve_problem(segment, grid, "spline", StageOptions())


def trained(problems: Sequence[CurveProblem], options: E2bOptions, stack: int) -> list[Weighting]:
    """Weights of all, so many segments at a time."""
    from causal_spark.dose_response.e2b import e2b_stacked

    return [
        one
        for first in range(0, len(problems), stack)
        for one in e2b_stacked(
            problems[first : first + stack], options, list(range(first, min(first + stack, len(problems))))
        )
    ]


def seconds_of(run: Callable[[], list[Weighting]], runs: int) -> tuple[float, list[Weighting]]:
    """CPU seconds of the best of some runs, and what it gave."""
    best = np.inf
    for _ in range(runs):
        start = time.process_time()
        found = run()
        best = min(best, time.process_time() - start)
    return best, found


def measure(case: Case, level_steps: int, steps: int | None, stack: int, runs: int) -> dict[str, object]:
    """CPU seconds of both. steps: of the last stretch; None trains until nothing improves, as usual."""
    from causal_spark.dose_response import e2b_training
    from causal_spark.dose_response.e2b_options import E2bOptions
    from causal_spark.dose_response.responses import make_responses

    problems = [problem_of(DESIGNS[k % len(DESIGNS)], case.n_rows, k) for k in range(case.n_segments)]
    options = E2bOptions() if steps is None else E2bOptions(max_steps=steps)
    usual = e2b_training._LEVEL_STEPS
    e2b_training._LEVEL_STEPS = usual if steps is None else level_steps
    try:
        trained(problems[:2], options, 2)
        loop, alone = seconds_of(lambda: trained(problems, options, 1), runs)
        stacked, together = seconds_of(lambda: trained(problems, options, stack), runs)
    finally:
        e2b_training._LEVEL_STEPS = usual
    start = time.process_time()
    for k, one in enumerate(problems):
        make_responses(one.segment, one.grid, one.is_line, options.responses(one), k)
    responses = time.process_time() - start
    apart = max(float(np.abs(a.weights - b.weights).max() * case.n_rows) for a, b in zip(alone, together, strict=True))
    return {
        "segments": case.n_segments,
        "rows": case.n_rows,
        "steps": "all" if steps is None else f"{level_steps} a level + {steps}",
        "stack": stack,
        "runs": runs,
        "loop_cpu_s": round(loop, 2),
        "stacked_cpu_s": round(stacked, 2),
        "times_as_fast": round(loop / stacked, 2),
        "responses_cpu_s": round(responses, 2),
        "training_times_as_fast": round((loop - responses) / (stacked - responses), 2),
        "largest_difference": f"{apart:.1e}",
    }


def main() -> None:
    """Append a row per case to ``results/response_curves.csv``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.response_curves", description=__doc__)
    parser.add_argument("--cases", nargs="*", default=["64x500", "256x100", "1000x200"], help="segments x rows")
    parser.add_argument("--converge", nargs="*", default=["64x500"], help="cases to train to the end as well")
    parser.add_argument(
        "--level-steps", type=int, default=20, help="steps of each stretch before the last; they lower the noise"
    )
    parser.add_argument("--steps", type=int, default=100, help=f"steps of the last stretch, {_MOST_STEPS} at most")
    parser.add_argument("--stack", type=int, nargs="+", default=[0], help="segments trained at once; 0: all of a case")
    parser.add_argument("--runs", type=int, default=2, help="the best counts")
    parser.add_argument("--results", type=Path, default=RESULTS / "response_curves.csv")
    arguments = parser.parse_args()
    if not 0 < arguments.steps <= _MOST_STEPS:
        parser.error(f"--steps is at most {_MOST_STEPS}: with more, segments stop at steps of their own.")
    here = origin()
    wanted = [(text, arguments.steps, arguments.runs) for text in arguments.cases]
    wanted += [(text, None, 1) for text in arguments.converge]
    for text, steps, runs in wanted:
        case = Case.parse(text)
        for stack in arguments.stack:
            row = measure(case, arguments.level_steps, steps, stack or case.n_segments, runs)
            append_rows(arguments.results, [here | row])
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    os.environ.update(SINGLE_THREAD)
    main()
