"""The leave-one-out criterion of DWCP: the mean squared error of predicting control cells, each left out in turn.

Athey, Imbens, Qu, Viviano, "Triply Robust Panel Estimators", arXiv 2508.21536, equation (3). A candidate need not be
scored on every cell to be known as worse than another: either for certain, or in a race.
"""

from __future__ import annotations

import math

import numpy as np

from causal_spark.panel.single_cells import SingleCells
from causal_spark.panel.tuning import TIE, Triple
from causal_spark.panel.types import Bools, Floats, Ints

# Cells predicted before a triple is first compared with its rival.
_FIRST_CELLS = 50
# Standard errors by which a triple has to be behind its rival to be out of the race.
_BEHIND = 2.0


class LeaveOneOut:
    """Scores of triples, see `causal_spark.panel.tuning.search`.

    Without a race every control cell is scored. Those with the largest errors under the best triple so far come first,
    in chunks that grow, so that a worse triple is soon known to be worse. That saves work, changes no complete score.
    In a race at most ``n_cells`` cells are drawn, in random order, and a triple is out when on the cells seen so far
    its mean squared error exceeds its rival's by two standard errors of the paired difference.

    Where no cell has a low-rank part, none has one at a larger lambda_nn and the same weights: such scores are known.

    cells: what predicts; scored: (n_units, n_periods), control cells that are identified without themselves;
    tolerance: of predictions; n_cells: None for no race; seed: draws its cells.
    """

    def __init__(
        self, cells: SingleCells, scored: Bools, tolerance: float, n_cells: int | None = None, seed: int = 0
    ) -> None:
        self.cells, self.tolerance, self.converged = cells, tolerance, True
        rows, columns = np.nonzero(scored)
        self.n_all, self.racing = rows.size, n_cells is not None
        if n_cells is not None:
            drawn = np.random.default_rng([seed, 4]).permutation(rows.size)[:n_cells]
            rows, columns = rows[drawn], columns[drawn]
        self.rows, self.columns = rows, columns
        self.order, self.least = np.arange(rows.size), math.inf
        self.errors: dict[Triple, Floats] = {}
        self.without_low_rank: dict[tuple[float, float], tuple[float, Triple]] = {}

    def __call__(self, triple: Triple, rival: Triple | None) -> tuple[float, bool]:
        """The score of a triple, and whether it is complete.

        rival: one that has a complete score; when the triple turns out to be worse the score is a number above the
        rival's: a lower bound, or in a race an estimate.
        """
        known = self.without_low_rank.get(triple[:2])
        if known is not None and triple[2] >= known[0]:
            self.errors[triple] = self.errors[known[1]]
            return float(np.square(self.errors[triple]).mean()), True
        errors, rank = np.zeros(self.rows.size), 0
        # L = 0 at once: comparing would cost more than it saves.
        begin, step = 0, errors.size if math.isinf(triple[2]) and not self.racing else _FIRST_CELLS
        while begin < errors.size:
            part = self.order[begin : begin + step]
            rows, columns = self.rows[part], self.columns[part]
            predicted, largest, good = self.cells.predict(rows, columns, triple, self.tolerance)
            rank, self.converged = max(rank, largest), self.converged and good
            errors[part] = self.cells.outcome[rows, columns] - predicted
            begin, step = begin + step, 2 * step
            if rival is not None and begin < errors.size:
                score = self._when_worse(np.square(errors), self.order[:begin], np.square(self.errors[rival]))
                if score is not None:
                    return score, False
        self.errors[triple] = errors
        squares = np.square(errors)
        if rank == 0:
            self.without_low_rank[triple[:2]] = triple[2], triple
        score = float(squares.mean())
        if score < self.least and not self.racing:
            self.order = np.argsort(-squares, kind="stable")
        self.least = min(score, self.least)
        return score, True

    def predicted(self, triple: Triple) -> Floats:
        """(n,) predictions of the scored cells, each left out, at a triple with a complete score."""
        return np.asarray(self.cells.outcome[self.rows, self.columns] - self.errors[triple])

    def _when_worse(self, squares: Floats, seen: Ints, rivals: Floats) -> float | None:
        """A score above the rival's when what was seen says that the triple is worse."""
        least = float(rivals.mean())
        if not self.racing:
            score = float(squares.sum()) / squares.size
            return score if score > least else None
        difference = squares[seen] - rivals[seen]
        behind = float(difference.mean())
        # Cells are drawn without replacement from the control cells.
        error = float(difference.std()) * math.sqrt(max(1.0 / seen.size - 1.0 / self.n_all, 0.0))
        return least + behind if behind > max(_BEHIND * error, TIE * least) else None
