"""Every error this package raises on purpose, one class per cause.

An error says what is wrong (naming column, group or key) and, in ``hint``, what to do about it. Errors under
`GroupError` concern one group only: a job records them in the ``failures`` table and goes on.
"""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a name that is not known: the nearest known one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."


class CausalSparkError(Exception):
    """Base of every error raised on purpose; ``hint`` is the remedy."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["CausalSparkError"], tuple[str, str]]:
        return type(self), (self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ConfigError(CausalSparkError):
    """A configuration key or value is unknown or out of range."""


class InputError(CausalSparkError):
    """The input table or frame as a whole cannot be used: a column is missing, misnamed or of the wrong type."""


class EmptyInputError(InputError):
    """The input has no rows, so there is nothing to estimate and nothing to replace."""


class LocationError(CausalSparkError):
    """A location is neither a path nor a two- or three-part table name."""


class TableShapeError(CausalSparkError):
    """A result table exists with other columns than this run would write."""


class WriteError(CausalSparkError):
    """A commit did not land, or landed with other rows than were staged."""


class LostGroupError(CausalSparkError):
    """A group was planned but came back neither with a result nor with a failure."""


class TooManyFailuresError(CausalSparkError):
    """More groups failed than ``max_failed_fraction`` allows; results were not made visible."""


class ShapeError(CausalSparkError):
    """Arrays that should go together do not."""


class GroupError(CausalSparkError):
    """Something is wrong with one group; the others go on."""


class LostChunksError(GroupError):
    """Parts of an estimator's work that was split were planned but did not come back."""


class DuplicateCellError(GroupError):
    """A (unit, time) pair occurs more than once."""


class TreatmentValueError(GroupError):
    """A treatment of a panel is not 0 or 1, or is missing; a dose is infinite."""


class OutcomeValueError(GroupError):
    """An outcome is infinite."""


class SampleWeightError(GroupError):
    """A sample weight is missing, negative or infinite."""


class KeyValueError(GroupError):
    """A unit, a time or a row id is missing."""


class DuplicateRowError(GroupError):
    """A row id occurs more than once."""


class NodeValueError(GroupError):
    """A node of a causal graph is infinite, or has too many levels."""


class CostValueError(GroupError):
    """A cost of an arm is missing or infinite."""


class CovariateValueError(GroupError):
    """A covariate is missing or infinite where the outcome is observed."""


class GroupTooLargeError(GroupError):
    """A group, or an estimator on it, needs more memory than a task may use."""


class SolverError(GroupError):
    """A numerical routine could not produce a usable number."""


class DeclinedError(GroupError):
    """The estimator or variance has no meaning on this group: a property of the method, not a fault."""


class NoEstimatorError(DeclinedError):
    """No estimator is asked for on this group."""


class NoEstimateError(DeclinedError):
    """No simulated panel has an estimate, or no estimate an interval."""


class NoTreatedCellsError(DeclinedError):
    """No observed cell is treated, so there is no effect to estimate."""


class NoControlUnitsError(DeclinedError):
    """No unit is untreated throughout, so there are no donors."""


class NoPrePeriodsError(DeclinedError):
    """Treated units have no period before treatment."""


class MissingCellsError(DeclinedError):
    """The estimator needs a complete block of cells, and too small a part of the panel is complete."""


class UnsupportedPatternError(DeclinedError):
    """The assignment pattern (switching on and off, say) is outside what the estimator is defined for."""


class UnsupportedCovariatesError(DeclinedError):
    """Covariates are given to an estimator that cannot use them."""


class NotIdentifiedError(DeclinedError):
    """No treated cell can be predicted from the control cells."""


class TooFewControlsError(DeclinedError):
    """A variance needs more control units than there are."""


class TooFewTreatedError(DeclinedError):
    """A variance needs more treated units than there are."""


class TooFewPeriodsError(DeclinedError):
    """A variance needs more untreated periods of the treated units than there are."""


class ConstantOutcomeError(DeclinedError):
    """The untreated outcomes do not vary, so scale-dependent tuning and variances are undefined."""


class TreatmentSupportError(DeclinedError):
    """The treatment takes too few distinct values for what is asked of it, or too many."""


class PositivityError(DeclinedError):
    """Treatments do not overlap enough: no sensible weights make them independent of the covariates."""


class TooFewEffectiveRowsError(DeclinedError):
    """Weights leave too few effective rows to draw a curve from."""


class NoControlRowsError(DeclinedError):
    """The control arm has no rows, or too few to compare with."""


class TooFewRowsError(DeclinedError):
    """A mechanism of a causal graph has fewer rows than it takes."""


class NoRowsError(DeclinedError):
    """No row has all that an estimate needs."""


class NoCovariatesError(DeclinedError):
    """No covariate varies, so there is nothing to balance."""
