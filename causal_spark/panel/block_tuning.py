"""Block tuning of DWCP: candidates scored by the squared error of the ATT on placebo blocks of the observed panel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causal_spark.panel.calibration_panels import placebo_panels
from causal_spark.panel.single_cells import SingleCells
from causal_spark.panel.stages import Arrays
from causal_spark.panel.tuning import BlockSearch, Triple
from causal_spark.panel.two_way import covariate_basis, identified_cells
from causal_spark.panel.types import Floats, Ints, Panel

#: Cells of one placebo block that are looked at, at most.
MOST_TARGETS = 100
# Cells times width of a fit, summed over the triples of one chunk.
_NUMBERS_PER_CHUNK = 20_000_000


@dataclass(frozen=True, slots=True, eq=False)
class PlaceboBlocks:
    """Placebo panels of block tuning. cells, targets: of each; inflation: (n,) by what errors are multiplied."""

    search: BlockSearch
    outcome: Floats
    cells: list[SingleCells]
    targets: list[tuple[Ints, Ints]]
    inflation: Floats

    @staticmethod
    def of(
        panel: Panel,
        outcome: Floats,
        grids: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]],
        wanted: tuple[int, int],
        seed: int,
    ) -> PlaceboBlocks | None:
        """Placebos of a panel, None where it has none.

        outcome: (n_units, n_periods), standardised; grids: of lambda_time, lambda_unit and lambda_nn; wanted: unit and
        time placebos at most; seed: draws them.
        """
        treated = panel.target_cells
        placebos = placebo_panels(outcome, panel.observed, treated, *wanted, np.random.default_rng([seed, 3]))
        if placebos is None:
            return None
        cells, targets, kept = [], [], []
        for k in range(placebos.panels.n):
            one = placebos.panels.take(np.array([k]))
            controls = one.cells[0] & ~one.treated[0] & ~treated
            basis = None if panel.covariates is None else covariate_basis(controls, panel.covariates)
            known = identified_cells(controls) & (True if basis is None else basis.identified)
            rows, columns = np.nonzero(one.targets[0] & ~treated & known)
            if rows.size:
                some = np.unique(np.linspace(0, rows.size - 1, min(rows.size, MOST_TARGETS)).round().astype(np.intp))
                cells.append(SingleCells(outcome, controls, basis))
                targets.append((rows[some], columns[some]))
                kept.append(k)
        if not kept:
            return None
        search = BlockSearch((True,) * len(kept), *grids)
        return PlaceboBlocks(search, outcome, cells, targets, placebos.inflation[kept])

    def chunks(self, triples: list[Triple], panels: Ints) -> list[tuple[list[Triple], int]]:
        """Triples and the panel of each chunk of a round: about a second of work on a large panel."""
        step = max(1, _NUMBERS_PER_CHUNK // (self.outcome.size * max(1, min(self.outcome.shape) // 4)))
        return [
            (triples[begin : begin + step], int(panel)) for panel in panels for begin in range(0, len(triples), step)
        ]

    def squares(self, triples: list[Triple], panel: int, tolerance: float) -> Arrays:
        """Squared errors of the mean over the placebo's cells, one per triple."""
        rows, columns = self.targets[panel]
        found, solved = np.zeros(len(triples)), True
        # Without a low-rank part a larger lambda_nn changes nothing, so the small ones come first.
        without_low_rank: dict[tuple[float, float], float] = {}
        for place in sorted(range(len(triples)), key=lambda place: triples[place][2]):
            triple = triples[place]
            square = without_low_rank.get(triple[:2])
            if square is None:
                predicted, rank, converged = self.cells[panel].predict(rows, columns, triple, tolerance)
                error = float((self.outcome[rows, columns] - predicted).mean())
                square, solved = (error * self.inflation[panel]) ** 2, solved and converged
                if rank == 0:
                    without_low_rank[triple[:2]] = square
            found[place] = square
        return {"squares": found, "solved": np.array(solved)}
