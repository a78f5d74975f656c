"""What estimators of individual effects take and give: plain frozen containers of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
#: Of cross-fitting: so many models of all rows but those of a fold.
N_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class ArmSample:
    """Rows of one segment.

    covariates: (n_rows, n_covariates), finite. arm: (n_rows,) from 0 to n_arms - 1, 0 the control arm; every arm has a
    row. outcome: (n_rows,), finite. is_binary: whether outcomes are 0 and 1 and nothing else.
    """

    covariates: Floats
    arm: Rows
    outcome: Floats
    n_arms: int
    is_binary: bool

    @property
    def n_rows(self) -> int:
        """Rows."""
        return len(self.arm)

    @property
    def counts(self) -> Rows:
        """(n_arms,) rows of each arm."""
        return np.bincount(self.arm, minlength=self.n_arms)

    def of_rows(self, rows: Rows) -> ArmSample:
        """Some of the rows, in the order given. An arm may then have none."""
        return ArmSample(self.covariates[rows], self.arm[rows], self.outcome[rows], self.n_arms, self.is_binary)


class ArmModel(Protocol):
    """What an estimator has learned."""

    def outcomes(self, covariates: Floats) -> Floats:
        """(n_rows, n_arms) mean outcomes had every row received each arm; effects are differences of them."""
        ...


class FittedModel(ArmModel, Protocol):
    """The same, with what was learned from all rows but those of one fold, for each of `N_FOLDS`."""

    def with_folds(self, covariates: Floats) -> tuple[Floats, Floats]:
        """`outcomes`, and (N_FOLDS, n_rows, n_arms) those by the models that held out each of the folds."""
        ...

    def cross_fitted(self, sample: ArmSample) -> Floats:
        """(n_rows, n_arms) outcomes of the sample it was fitted to, each row's by models that held it out.

        The only row of an arm was held out by none; its outcomes are those of the model of all rows.
        """
        ...


def folds_of(arm: Rows, n_folds: int, rng: np.random.Generator) -> Rows:
    """(n_rows,) the fold of each row, drawn so that every fold has its share of each arm."""
    # Rows are dealt arm by arm, shuffled, and each arm goes on where the one before ended.
    order = np.lexsort([rng.random(len(arm)), arm])
    folds = np.empty(len(arm), dtype=np.intp)
    folds[order] = np.arange(len(arm)) % n_folds
    return folds


def held_out(arm: Rows, split_seed: int, fold: int) -> NDArray[np.bool_]:
    """(n_rows,) whether a row is in the fold, which has a fifth of each arm. The only row of an arm is in none."""
    out = folds_of(arm, N_FOLDS, np.random.default_rng(split_seed)) == fold
    return np.asarray(out & (np.bincount(arm)[arm] > 1))


def derived_seed(*parts: int) -> int:
    """63 bits."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
