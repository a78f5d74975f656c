"""Made-up responses: random functions of covariates and treatment over the real rows, with known average curves.

A response is y(x, a) = m(a) + sum over k of h_k(a) g_k(x) + noise. Its average curve is m alone, as every g_k has mean
zero over the rows; the rest is what a weighting has to keep out of the curve. All coefficients are independent normals,
so that the expected squared error of any weighting has a closed form (`expected_loss`). No outcome is looked at.

Confounding lies along the functions of the covariates by which the treatment was assigned; along any other function
treatment and covariates are unrelated already, up to chance. So responses along the fitted assignment E[a | x] have a
variance of their own: those drawn without a look at the assignment are hardly confounded when covariates are many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal_spark.dose_response.components import fit_components
from causal_spark.dose_response.moments import ranks, ranks_at
from causal_spark.dose_response.types import Floats, Segment

Link = Literal["identity", "logistic"]
#: Covariates further from their mean, in standard deviations, are moved there: a product of two tails is no response.
CLIP = 3.0
#: Share of the general functions' variance that goes by what the treatment depends on; the rest is spread as below.
_FOLLOWS = 0.95
_SPREAD = (0.4, 0.3, 0.3)
#: Whatever the options, functions in general have this share of the variance of confounding at least, and so has the
#: assignment; what does not differ by treatment has that one; and average curves vary so much: weights that are learned
#: without any of these let it into the curve.
_LEAST_SHARE = 0.1
_LEAST_CONSTANT = 0.3
_LEAST_CURVATURE = 0.1
#: A block whose standard deviation is no more than this does not vary.
_LEAST_SPREAD = 1e-6
#: Variance explained, per unit of noise, below which the treatment is taken to be assigned at random.
_LEAST_EXPLAINED = 0.01
#: Relative variances of the cosines of the treatment's rank by which confounding differs, and of those of the curve.
_MODULATIONS = np.array([0.5, 0.275, 0.15, 0.075])
_CURVATURES = np.exp(-(np.arange(1, 9) ** 2) / 8.0)


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """Variances of made-up responses. Confounding has a variance of two, along the assignment and in general.

    spread: of functions of the covariates in general, per unit along the assignment, from 1/9 to 9. by_treatment: share
    of all these that differs by treatment, up to .7. curvature: of the average curve, from .1. noise: of the outcome
    around the response, in the whole segment's mean. n_waves: random cosines that stand for smooth functions of all
    covariates. link: of the random functions to the responses; logistic makes these lie between zero and one, adds a
    random level, and takes noise in units of a binary outcome's. Values beyond these ranges are moved into them.
    """

    spread: float = 3.0
    by_treatment: float = 0.2
    curvature: float = 1.0
    noise: float = 0.5
    n_waves: int = 64
    link: Link = "identity"


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """Random responses of one segment.

    confounding: (n_rows, n_functions) functions of the covariates with mean zero, each times its standard deviation.
    modulation, modulation_at_grid: (n_rows, n_modulations), (n_grid, n_modulations) functions of the treatment that
    they are multiplied with, on the rows and on the grid, likewise. average, average_at_grid: (n_rows, n_curves),
    (n_grid, n_curves) average curves, likewise.
    assignment: (n_rows,) the fitted assignment, standardised; zero where next to nothing explains the treatment.
    noise: variance of the noise.
    """

    confounding: Floats
    modulation: Floats
    modulation_at_grid: Floats
    average: Floats
    average_at_grid: Floats
    assignment: Floats
    noise: float


def make_responses(segment: Segment, grid: Floats, is_line: bool, options: ResponseOptions, seed: int) -> Responses:
    """Random responses over a segment's rows. is_line: whether average curve and modulations are straight lines."""
    weights = segment.sample_weights
    covariates = np.clip(segment.standardised_covariates(), -CLIP, CLIP)
    blocks = covariate_blocks(covariates, weights, options.n_waves, seed)
    ranked = ranks(segment.treatment, weights)
    found = fit_components(blocks, ranked, weights)
    fitted = np.sum([block @ part for block, part in zip(blocks, found.coefficients, strict=True)], axis=0)
    is_assigned = found.variances.sum() >= _LEAST_EXPLAINED * found.noise
    assignment = fitted / np.sqrt(weights @ fitted**2) if is_assigned else np.zeros_like(fitted)
    explained = found.variances / found.variances.sum()
    shares = _FOLLOWS * explained + (1 - _FOLLOWS) * np.array(_SPREAD)
    in_general = np.clip(options.spread / (1 + options.spread), _LEAST_SHARE, 1 - _LEAST_SHARE)
    general = [np.sqrt(2 * in_general * share) * block for share, block in zip(shares, blocks, strict=True)]
    confounding = np.concatenate([*general, np.sqrt(2 * (1 - in_general)) * assignment[:, None]], axis=1)
    is_linear = options.link == "identity"
    by_treatment = min(options.by_treatment, 1 - _LEAST_CONSTANT)
    curvature = max(options.curvature, _LEAST_CURVATURE)
    if is_line:
        doses = _standardised_doses(segment, grid)
        # The second stage takes every line as it is, so that one has to be drawn only where a link bends it.
        average = [np.sqrt(curvature) * one[:, : int(not is_linear)] for one in doses]
    else:
        cosines = [_cosines(one) for one in ranks_at(segment.treatment, weights, grid)]
        average = [one * np.sqrt(curvature * _CURVATURES / _CURVATURES.sum()) for one in cosines]
    if not is_linear:
        average = [np.concatenate([one, np.ones((len(one), 1))], axis=1) for one in average]
    of_rows, of_grid = modulations(segment, grid, is_line, by_treatment)
    return Responses(confounding, of_rows, of_grid, average[0], average[1], assignment, options.noise)


def modulations(segment: Segment, grid: Floats, is_line: bool, by_treatment: float) -> tuple[Floats, Floats]:
    """(n_rows, n_modulations), (n_grid, n_modulations): what functions of the covariates are multiplied with.

    A constant, and functions of the treatment, lines only where all is_line; each times the root of its share of the
    variance, which is by_treatment for all but the constant.
    """
    if is_line:
        differing = [np.sqrt(by_treatment) * one for one in _standardised_doses(segment, grid)]
    else:
        shares = ranks_at(segment.treatment, segment.sample_weights, grid)
        differing = [_cosines(one)[:, : len(_MODULATIONS)] * np.sqrt(by_treatment * _MODULATIONS) for one in shares]
    constant = np.sqrt(1 - by_treatment)
    of_rows, of_grid = (np.concatenate([np.full((len(one), 1), constant), one], axis=1) for one in differing)
    return of_rows, of_grid


def _standardised_doses(segment: Segment, grid: Floats) -> tuple[Floats, Floats]:
    """(n_rows, 1) standardised treatments, and (n_grid, 1) doses in the same units."""
    weights, treatment = segment.sample_weights, segment.treatment
    centre = weights @ treatment
    spread = np.sqrt(weights @ (treatment - centre) ** 2)
    return segment.standardised_treatment()[:, None], ((grid - centre) / spread)[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class CovariateFunctions:
    """Linear, quadratic and smooth functions of covariates, in three blocks.

    directions: (n_covariates, n_waves), phases: (n_waves,) of the cosines. centres: means of each block's functions,
    scales: roots of their total variances, on the rows they were made with.
    """

    directions: Floats
    phases: Floats
    centres: tuple[Floats, ...] = ()
    scales: tuple[float, ...] = ()

    def blocks(self, covariates: Floats) -> list[Floats]:
        """(n_rows, n_functions) each. covariates: (n_rows, n_covariates)."""
        centred = zip(self._raw(covariates), self.centres, self.scales, strict=True)
        return [(block - centre) / scale for block, centre, scale in centred]

    def on(self, covariates: Floats, weights: Floats) -> CovariateFunctions:
        """The same with mean zero and total variance one in each block, on rows with weights that sum to one."""
        raw = self._raw(covariates)
        centres = tuple(weights @ block for block in raw)
        spreads = [np.sqrt(np.sum(weights @ (block - mean) ** 2)) for block, mean in zip(raw, centres, strict=True)]
        # The square of what is one or minus one does not vary.
        scales = tuple(float(spread) if spread > _LEAST_SPREAD else 1.0 for spread in spreads)
        return CovariateFunctions(self.directions, self.phases, centres, scales)

    def _raw(self, covariates: Floats) -> tuple[Floats, ...]:
        first, second = np.triu_indices(covariates.shape[1])
        products = covariates[:, first] * covariates[:, second] * np.where(first == second, 1.0, np.sqrt(2.0))
        return covariates, products, np.cos(covariates @ self.directions + self.phases)


def draw_functions(n_covariates: int, n_waves: int, seed: int) -> CovariateFunctions:
    """Functions not yet standardised."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(n_covariates, n_waves)) / np.sqrt(n_covariates)
    return CovariateFunctions(directions, rng.uniform(0, 2 * np.pi, n_waves))


def covariate_blocks(covariates: Floats, weights: Floats, n_waves: int, seed: int) -> list[Floats]:
    """Linear, quadratic and smooth functions of the covariates, each block with mean zero and total variance one."""
    return draw_functions(covariates.shape[1], n_waves, seed).on(covariates, weights).blocks(covariates)


def smooth_curves(segment: Segment, grid: Floats) -> tuple[Floats, Floats]:
    """(n_rows, n_curves), (n_grid, n_curves) functions of the treatment's rank.

    On the rows with mean zero and total variance one; the smoother, the larger.
    """
    weights = segment.sample_weights
    of_rows, of_grid = (_cosines(one) * np.sqrt(_CURVATURES) for one in ranks_at(segment.treatment, weights, grid))
    mean = weights @ of_rows
    scale = np.sqrt(np.sum(weights @ (of_rows - mean) ** 2))
    return (of_rows - mean) / scale, (of_grid - mean) / scale


def _cosines(shares: Floats) -> Floats:
    """(n_rows, n_cosines) functions of ranks between zero and one, orthonormal there."""
    return np.asarray(np.sqrt(2.0) * np.cos(np.pi * shares[:, None] * np.arange(1, len(_CURVATURES) + 1)))
