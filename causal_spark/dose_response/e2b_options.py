"""Options of E2B."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from causal_spark.dose_response.responses import Link, ResponseOptions
from causal_spark.dose_response.types import CurveProblem
from causal_spark.neural.training import TrainingOptions

Parameters = Literal["network", "free"]
Loss = Literal["exact", "sampled"]
Noise = float | Literal["outcome"]
Device = Literal["cpu", "auto"]
#: Names of options, whether a value is allowed, and what to say where it is not.
_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (("hidden", "n_draws", "n_waves", "max_steps"), lambda value: value >= 1, "a positive number"),
    (("least_effective", "by_treatment"), lambda value: 0 <= value <= 1, "a share, between 0 and 1"),
    (("spread", "curvature"), lambda value: 0 <= value < np.inf, "a variance"),
    (("learning_rate",), lambda value: 0 < value < np.inf, "a positive number"),
)


@dataclass(frozen=True, slots=True)
class E2bOptions:
    """weights: given by a network, or free (a parameter per row). hidden: units of both hidden layers.
    least_effective: share of 500 rows that stay effective at least, or three quarters of it where a little variance
    buys much bias; of n rows, times (500 / n) to the power .2.
    loss: expected, in closed form (exact), or the mean over n_draws drawn responses, new in every step (sampled).
    spread, by_treatment, curvature, noise, n_waves, link: of the made-up responses, see `ResponseOptions`. A logistic
    link is for outcomes between zero and one, such as binary ones; it needs sampled losses. noise: outcome looks at the
    outcome, to see how much noise it has, and at nothing else of it; everything else looks at none.
    learning_rate, max_steps: of the last stretch of training, see `TrainingOptions`. device: auto trains on a GPU where
    there is one; its weights are not those of a CPU to the last bit.
    """

    weights: Parameters = "network"
    hidden: int = 32
    least_effective: float = 0.55
    loss: Loss = "exact"
    n_draws: int = 64
    spread: float = 3.0
    by_treatment: float = 0.2
    curvature: float = 1.0
    noise: Noise = 0.5
    n_waves: int = 64
    link: Link = "identity"
    learning_rate: float = 0.02
    max_steps: int = 3000
    device: Device = "cpu"

    def __post_init__(self) -> None:
        for name, allowed in (("weights", Parameters), ("loss", Loss), ("link", Link), ("device", Device)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it is one of {', '.join(get_args(allowed))}")
        for names, is_allowed, says in _RANGES:
            for name in names:
                if not is_allowed(getattr(self, name)):
                    raise ValueError(f"{name} is {getattr(self, name)}; it is {says}")
        if self.noise != "outcome" and not (isinstance(self.noise, float | int) and 0 < self.noise < np.inf):
            raise ValueError(f"noise is {self.noise!r}; it is a positive number, or outcome")
        if self.noise == "outcome" and self.link != "identity":
            raise ValueError(f"noise: outcome is not known of link: {self.link}; give a number")
        if self.link != "identity" and self.loss == "exact":
            raise ValueError(f"link: {self.link} has no expected loss in closed form; it needs loss: sampled")

    def responses(self, problem: CurveProblem) -> ResponseOptions:
        """What `make_responses` takes. Raises `ValueError` where noise is to be the outcome's and nobody looked."""
        noise = problem.noise if self.noise == "outcome" else self.noise
        if noise is None:
            raise ValueError("noise: outcome needs a problem that knows it, see `with_outcome_noise`")
        return ResponseOptions(self.spread, self.by_treatment, self.curvature, noise, self.n_waves, self.link)

    @property
    def training(self) -> TrainingOptions:
        """What `train` takes."""
        return TrainingOptions(learning_rate=self.learning_rate, max_steps=self.max_steps)
