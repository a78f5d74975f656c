"""Doubly weighted causal panel estimator (DWCP, published as the triply robust panel estimator TROP).

Athey, Imbens, Qu, Viviano, "Triply Robust Panel Estimators", arXiv 2508.21536, equations (2) and (3). For each target
cell (i, t), other treated cells left out:

    min over alpha, beta, L of  sum_js theta_s omega_j (1 - W_js) (Y_js - alpha_j - beta_s - L_js)^2 + lambda_nn ||L||_*
    theta_s = exp(-lambda_time |t - s|),  omega_j = exp(-lambda_unit d(j, i))

with d(j, i) the root mean square of Y_iu - Y_ju over the periods u != t in which both are untreated and observed.
Penalties are chosen by predicting control cells, each left out in turn, or by placebo blocks. With covariates X L is
replaced by X b + L, b not penalised (section 6 there).

Outcomes are first divided by the standard deviation of the control cells; lambda_time is per period, lambda_unit per
standard deviation of distance, lambda_nn on the scale of the standardised sum of squares (no 1/2). Weights are not
normalised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal_spark.panel.block_tuning import MOST_TARGETS, PlaceboBlocks
from causal_spark.panel.constancy import ConstancyOptions, assess, read_block
from causal_spark.panel.did import require_identified, require_targets
from causal_spark.panel.leave_one_out import LeaveOneOut
from causal_spark.panel.single_cells import SingleCells
from causal_spark.panel.stages import Arrays, StagedDefinition, run_in_process
from causal_spark.panel.tuning import (
    Triple,
    check_grids,
    check_tolerances,
    given_triple,
    search,
    standardised,
    triple_of,
)
from causal_spark.panel.two_way import covariate_basis, identified_cells
from causal_spark.panel.types import Bools, Constancy, Fit, Floats, Ints, Panel, PanelSize, Penalties, TuningStep

# Control cells of treated units that are predicted: so many at most, and on long panels fewer, to this many numbers.
_MOST_PLACEBOS, _PLACEBO_NUMBERS = 1_000, 40_000_000
_FEWEST_PLACEBOS = 100


@dataclass(frozen=True, slots=True)
class DwcpOptions:
    """How DWCP chooses its penalties.

    lambda_time: candidates for the decay per period, >= 0.
    lambda_unit: candidates for the decay per standard deviation of distance between units, >= 0.
    lambda_nn: candidates for the nuclear-norm penalty, >= `LAMBDA_NN_FLOOR`; infinity stands for no low-rank part.
    tuning: ``loocv`` (the paper's: every control cell left out in turn), ``race`` (the same on control cells drawn at
        random, and on no more of them than it takes to see that a candidate is worse) or ``block`` (the squared error
        of the ATT on placebo blocks of the treated cells' shape, among untreated units and in earlier periods).
    search: of ``loocv`` and ``race``: ``cyclic`` (the paper's: one penalty at a time, then coordinate descent) or
        ``grid`` (every combination).
    race_cells: of ``race``: control cells drawn at most, >= 100.
    unit_placebos, time_placebos: of ``block``: placebos of each kind at most, >= 0, one of them positive.
    cv_tolerance, tolerance: precision of predictions, in standard deviations of the control cells, in tuning and at the
        treated cells.
    """

    lambda_time: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
    lambda_unit: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    lambda_nn: tuple[float, ...] = (math.inf, 10.0, 3.0, 1.0, 0.3, 0.1)
    tuning: Literal["loocv", "race", "block"] = "race"
    search: Literal["cyclic", "grid"] = "cyclic"
    race_cells: int = 200
    unit_placebos: int = 6
    time_placebos: int = 6
    cv_tolerance: float = 3e-4
    tolerance: float = 1e-7

    def __post_init__(self) -> None:
        check_grids(self.lambda_time, self.lambda_unit, self.lambda_nn)
        check_tolerances(cv_tolerance=self.cv_tolerance, tolerance=self.tolerance)
        if self.tuning not in ("loocv", "race", "block"):
            raise ValueError(f"tuning must be loocv, race or block, not {self.tuning!r}.")
        if self.race_cells < 100:
            raise ValueError(f"race_cells must be at least 100, not {self.race_cells}.")
        if self.search not in ("cyclic", "grid"):
            raise ValueError(f"search must be cyclic or grid, not {self.search!r}.")
        if min(self.unit_placebos, self.time_placebos) < 0 or self.unit_placebos + self.time_placebos == 0:
            raise ValueError("unit_placebos and time_placebos must not be negative, nor both zero.")


_DEFAULTS = DwcpOptions()


def dwcp(panel: Panel, options: DwcpOptions = _DEFAULTS, penalties: Penalties | None = None, seed: int = 0) -> Fit:
    """Predict every identified treated cell by its own weighted low-rank fit.

    Any assignment pattern, missing cells and covariates; effects are assumed not to carry over. Penalties that are
    given but None mean no weighting (lambda_time, lambda_unit) and no low-rank part (lambda_nn).
    ``counterfactual`` holds the target cells' predictions and, at control cells of ever-treated units (the 1,000
    nearest to their treatment, fewer on panels of more than 40,000 cells), leave-one-out predictions at the chosen
    penalties; elsewhere, and where not identified, NaN. With ``loocv`` and ``race`` the criterion is the mean squared
    leave-one-out error in squared standard deviations of the control cells, of all or of those drawn; a candidate that
    is left before all of them were seen is listed with what it had, see `LeaveOneOut`; for ``block`` see `BlockSearch`.
    ``seed`` draws placebos and the cells of a race. ``rank`` is the largest over target cells. ``constancy`` tests that
    the effect does not change over time; not with covariates, nor where penalties are given.
    Raises NoTreatedCellsError, NotIdentifiedError, ConstantOutcomeError, and ValueError for given penalties out of
    range.
    """
    return run_in_process(DwcpStages(panel, options, penalties, seed))


class DwcpStages:
    """DWCP in rounds of chunks, see `causal_spark.panel.stages`.

    Block tuning takes a round or three, its chunks being triples on one placebo panel; leave-one-out tuning is a single
    chunk, as every triple is compared with the best before. In the last round the chunks are cells, and the first one
    the test of constancy. State: ``squares_<k>`` of the tuning rounds, ``triple`` and ``path`` once they are known,
    ``solved``, ``known_rows``, ``known_columns`` and ``known_predicted`` of control cells that tuning has predicted,
    then ``predicted`` with ``rank`` and ``converged``.
    """

    def __init__(self, panel: Panel, options: DwcpOptions, penalties: Penalties | None, seed: int) -> None:
        require_targets(panel)
        self.panel, self.options, self.seed = panel, options, seed
        controls = panel.control_cells
        basis = None if panel.covariates is None else covariate_basis(controls, panel.covariates)
        identified = identified_cells(controls) & (True if basis is None else basis.identified)
        wanted = panel.target_cells & identified
        require_identified(panel, np.where(wanted, 0.0, np.nan))
        self.outcome, self.centre, self.scale = standardised(panel)
        self.cells = SingleCells(self.outcome, controls, basis)
        self.left_out = self.cells.identified_when_left_out()
        rows, columns = np.nonzero(wanted)
        self.targets = rows, columns
        self.placebos = _nearest(self.left_out & panel.ever_treated[:, None], panel.treated)
        self.given = None if penalties is None else given_triple(penalties)
        self.blocks = None
        if self.given is None and options.tuning == "block":
            grids = options.lambda_time, options.lambda_unit, options.lambda_nn
            counts = options.unit_placebos, options.time_placebos
            self.blocks = PlaceboBlocks.of(panel, self.outcome, grids, counts, seed)
            if self.blocks is None:
                self.given = (0.0, min(options.lambda_unit), math.inf)
        elif self.given is None and not self.left_out.any():
            self.given = (0.0, 0.0, math.inf)
        self.tuned = "fixed" if penalties is not None else "none" if self.given is not None else options.tuning

    def n_chunks(self, state: Arrays) -> int:
        """Chunks of the next round."""
        if "predicted" in state:
            return 0
        triple = self.triple(state)
        if triple is not None:
            return 1 + len(self._cell_chunks(triple, state))
        if self.blocks is None:
            return 1
        asked = self.blocks.search.ask(_rounds(state))
        return 0 if asked is None else len(self.blocks.chunks(*asked))

    def run(self, state: Arrays, chunk: int) -> Arrays:
        """Squared errors of triples on a placebo panel, the whole of leave-one-out tuning, or predictions of cells."""
        triple = self.triple(state)
        if triple is not None:
            if chunk == 0:
                return _as_arrays(self._constancy())
            (rows, columns), tolerance = self._cell_chunks(triple, state)[chunk - 1]
            predicted, rank, converged = self.cells.predict(rows, columns, triple, tolerance)
            return {"predicted": predicted, "rank": np.array(rank), "converged": np.array(converged)}
        if self.blocks is not None:
            asked = self.blocks.search.ask(_rounds(state))
            assert asked is not None  # noqa: S101 - n_chunks would be 0
            triples, panel = self.blocks.chunks(*asked)[chunk]
            return self.blocks.squares(triples, panel, self.options.cv_tolerance)
        n_cells = self.options.race_cells if self.options.tuning == "race" else None
        score = LeaveOneOut(self.cells, self.left_out, self.options.cv_tolerance, n_cells, self.seed)
        grids = self.options.lambda_time, self.options.lambda_unit, self.options.lambda_nn
        found, path = search(score, *grids, self.options.search)
        # Predictions of control cells that the estimate shows as placebos need not be made again.
        shown = np.zeros(self.outcome.shape, dtype=bool)
        shown[self.placebos] = True
        mine = shown[score.rows, score.columns]
        known = {
            "known_rows": score.rows[mine],
            "known_columns": score.columns[mine],
            "known_predicted": score.predicted(found)[mine],
        }
        return known | {"triple": np.array(found), "path": _path_array(path), "solved": np.array(score.converged)}

    def fold(self, state: Arrays, results: Sequence[Arrays]) -> Arrays:
        """The state after a round."""
        if self.triple(state) is not None:
            found = results[1:]
            return {
                **state,
                **results[0],
                "predicted": np.concatenate([each["predicted"] for each in found]),
                "rank": np.array(max(int(each["rank"]) for each in found)),
                "converged": np.array(all(bool(each["converged"]) for each in found)),
            }
        if self.blocks is None:
            return {**state, **results[0]}
        rounds = _rounds(state)
        asked = self.blocks.search.ask(rounds)
        assert asked is not None  # noqa: S101 - there was a round to fold
        squares = np.empty((len(asked[0]), asked[1].size))
        place = {int(panel): column for column, panel in enumerate(asked[1])}
        for (triples, panel), result in zip(self.blocks.chunks(*asked), results, strict=True):
            squares[[asked[0].index(triple) for triple in triples], place[panel]] = result["squares"]
        solved = bool(state.get("solved", True)) and all(bool(result["solved"]) for result in results)
        rounds = [*rounds, squares]
        while (asked := self.blocks.search.ask(rounds)) is not None and not asked[1].size:
            # Few placebos, all of them seen already.
            rounds.append(np.empty((len(asked[0]), 0)))
        after = {**state, "solved": np.array(solved)} | {f"squares_{k}": each for k, each in enumerate(rounds)}
        if asked is None:
            triple, path = self.blocks.search.answer(rounds)
            after |= {"triple": np.array(triple), "path": _path_array(path)}
        return after

    def finish(self, state: Arrays) -> Fit:
        """The fit."""
        triple = self.triple(state)
        assert triple is not None  # noqa: S101 - no rounds are left
        prediction = np.full(self.outcome.shape, np.nan)
        # Groups repeat cells, always with the same prediction.
        chunks = self._cell_chunks(triple, state)
        rows, columns = (np.concatenate([cells[axis] for cells, _ in chunks]) for axis in (0, 1))
        prediction[rows, columns] = state["predicted"]
        if "known_rows" in state:
            prediction[state["known_rows"], state["known_columns"]] = state["known_predicted"]
        steps = state["path"].tolist() if "path" in state else []
        path = tuple(TuningStep(*step) for step in steps)
        return Fit(
            counterfactual=prediction * self.scale + self.centre,
            penalties=Penalties(*triple),
            tuning=self.tuned,
            criterion=next((step.criterion for step in reversed(path) if triple_of(step) == triple), None),
            path=path,
            rank=int(state["rank"]),
            converged=bool(state["converged"]) and bool(state.get("solved", True)),
            constancy=_as_constancy(state),
        )

    def triple(self, state: Arrays) -> Triple | None:
        """The penalties, once they are known."""
        if self.given is not None or "triple" not in state:
            return self.given
        time, unit, nn = state["triple"].tolist()
        return time, unit, nn

    def _cell_chunks(self, triple: Triple, state: Arrays) -> list[tuple[tuple[Ints, Ints], float]]:
        """Cells (rows, columns) of each chunk and their precision: targets, then control cells of treated units.

        The latter without those that tuning has predicted already.
        """
        placebos = self.placebos
        if "known_rows" in state:
            known = np.zeros(self.outcome.shape, dtype=bool)
            known[state["known_rows"], state["known_columns"]] = True
            left = ~known[placebos]
            placebos = placebos[0][left], placebos[1][left]
        return [
            (part, tolerance)
            for cells, tolerance in ((self.targets, self.options.tolerance), (placebos, self.options.cv_tolerance))
            for part in self.cells.chunks(*cells, triple)
        ]

    def _constancy(self) -> Constancy | None:
        # The test's own fits take no covariates.
        if self.tuned == "fixed" or self.panel.covariates is not None:
            return None
        return assess(read_block(self.panel), ConstancyOptions(), self.seed).constancy


def _rounds(state: Arrays) -> list[Floats]:
    return [state[name] for name in (f"squares_{k}" for k in range(len(state))) if name in state]


def _path_array(path: tuple[TuningStep, ...]) -> Floats:
    return np.array(
        [[step.lambda_time, step.lambda_unit, step.lambda_nn, step.criterion] for step in path], dtype=float
    )


def _as_arrays(constancy: Constancy | None) -> Arrays:
    return (
        {}
        if constancy is None or constancy.statistic is None or constancy.p_value is None
        else {"constancy": np.array([constancy.statistic, constancy.p_value])}
    )


def _as_constancy(state: Arrays) -> Constancy | None:
    if "constancy" not in state:
        return None
    statistic, p_value = state["constancy"].tolist()
    return Constancy(statistic, p_value, None)


def _most_placebos(n_cells: int) -> int:
    return max(_FEWEST_PLACEBOS, min(_MOST_PLACEBOS, _PLACEBO_NUMBERS // n_cells))


def _nearest(cells: Bools, treated: Bools) -> tuple[Ints, Ints]:
    """Positions of cells, no more than `_most_placebos`, those nearest in time to a treated cell of their unit."""
    rows, columns = np.nonzero(cells)
    most = _most_placebos(cells.size)
    if rows.size <= most:
        return rows, columns
    periods = np.arange(treated.shape[1])
    apart = np.array([np.abs(t - periods[treated[i]]).min() for i, t in zip(rows, columns, strict=True)])
    kept = np.sort(np.argsort(apart, kind="stable")[:most])
    return rows[kept], columns[kept]


def dwcp_cost(size: PanelSize, options: DwcpOptions = _DEFAULTS, tune: bool = True) -> float:
    """Seconds of one fit."""
    return 5e-3 + (sum(_round_seconds(size, options)) if tune else _round_seconds(size, options)[-1])


def _round_seconds(size: PanelSize, options: DwcpOptions) -> tuple[float, ...]:
    """Seconds of every round: of tuning, and of the chosen penalties."""
    additive, low_rank = _fit_seconds(size)
    finite = [value for value in options.lambda_nn if not math.isinf(value)]
    per_cell = low_rank if finite else additive
    share = max(len(finite), 1) / len(options.lambda_nn)
    n_periods = max(1, size.n_treated_cells // max(size.n_treated_units, 1))
    # Targets of a period share a fit where no unit counts for more than another.
    n_targets = size.n_treated_cells if max(options.lambda_unit) > 0 else n_periods
    last = (n_targets + _n_placebos(size)) * per_cell + 60 * 13 * low_rank
    grids = (len(options.lambda_time), len(options.lambda_unit), len(finite))
    if options.tuning == "block":
        pairs = grids[0] * len(options.lambda_nn)
        fits = min(n_periods if min(options.lambda_unit) == 0 else size.n_treated_cells, MOST_TARGETS)
        beside = min(size.n_treated_cells, MOST_TARGETS) * (grids[1] - 1)
        panels = options.unit_placebos + options.time_placebos
        rounds = (share * pairs * 4 * fits, min(8, pairs) * max(panels - 4, 0) * fits, beside * panels)
        return *(n * per_cell for n in rounds[: 3 if grids[1] > 1 else 2]), last
    weights = grids[0] + grids[1] if options.search == "cyclic" else grids[0] * grids[1]
    triples = sum(grids) if options.search == "cyclic" else grids[0] * grids[1] * grids[2]
    cells = size.n_units * size.n_periods
    if options.tuning == "race":
        cells = min(cells, options.race_cells)
    return cells * (weights * additive + (0.4 * triples * low_rank if finite else 0.0)), last


def _n_placebos(size: PanelSize) -> int:
    return min(_most_placebos(size.n_units * size.n_periods), size.n_treated_units * size.n_periods)


def _fit_seconds(size: PanelSize) -> tuple[float, float]:
    """Seconds of the fit of a single cell, without and with a low-rank part."""
    short, long = sorted((size.n_units, size.n_periods))
    width = 3.0 + short / 8.0
    # Without a low-rank part as on complete panels; where many units have gaps of their own it is more.
    additive = 5e-6 + 1e-8 * long * short
    sweep = 1e-4 + 1.2e-9 * long * short * width + 5e-10 * short**3 + 6e-9 * width**3
    return additive, 1e-4 + 8 * sweep


def _most_chunks(size: PanelSize, options: DwcpOptions) -> tuple[int, ...]:
    """Chunks of every round, one triple on one placebo panel or one cell each at most."""
    last = 1 + size.n_treated_cells + _n_placebos(size)
    if options.tuning != "block":
        return 1, last
    panels = options.unit_placebos + options.time_placebos
    few = min(4, panels)
    pairs, beside = len(options.lambda_time) * len(options.lambda_nn), len(options.lambda_unit) - 1
    tuning = (pairs * few, max(1, 8 * (panels - few)), beside * panels)
    return *tuning[: len(_round_seconds(size, options)) - 1], last


DWCP_STAGES = StagedDefinition(DwcpStages, _round_seconds, _most_chunks)
