import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from causal_spark.dose_response.second_stage import SECOND_STAGES, StageOptions, curve_problem, weighted_quantiles
from causal_spark.errors import TreatmentSupportError
from tests.dose_response.segments import random_segment

STAGES = pytest.mark.parametrize("name", SECOND_STAGES)


def made(name, treatment, grid, sample_weights=None, **options):
    weights = np.full(len(treatment), 1 / len(treatment)) if sample_weights is None else sample_weights
    return SECOND_STAGES[name](treatment, weights, grid, StageOptions(**options))


def random_weights(rng, n_replicates, n_rows):
    weights = rng.exponential(size=(n_replicates, n_rows))
    return weights / weights.sum(axis=1, keepdims=True)


def quantile_knots(treatment, n_knots):
    """Knots by numpy's quantiles, whose Hazen kind interpolates the midpoints of steps."""
    low, high = np.quantile(treatment, [0.05, 0.95], method="hazen")
    inside = treatment[(treatment >= low) & (treatment <= high)]
    between = np.quantile(inside, np.linspace(0, 1, n_knots)[1:-1], method="hazen")
    return np.unique(np.r_[low, between, high])


def natural_spline(knots, values):
    """scipy's natural spline and its derivative, continued as straight lines."""
    inner = CubicSpline(knots, values, bc_type="natural")

    def function(a):
        within = np.clip(a, knots[0], knots[-1])
        return inner(within) + inner(within, 1) * (a - within)

    return function, lambda a: inner(np.clip(a, knots[0], knots[-1]), 1)


def test_the_line_is_a_weighted_polyfit():
    rng = np.random.default_rng(0)
    treatment, outcome = rng.gamma(2, size=40), rng.normal(size=40)
    grid = np.linspace(-1, 5, 7)
    weights = random_weights(rng, 3, 40)
    curves, slopes = made("line", treatment, grid, random_weights(rng, 1, 40)[0]).curves(weights, outcome)
    for one, curve, slope in zip(weights, curves, slopes, strict=True):
        b, a = np.polyfit(treatment, outcome, 1, w=np.sqrt(one))
        np.testing.assert_allclose(curve, a + b * grid, atol=1e-10)
        np.testing.assert_allclose(slope, b, atol=1e-10)


@pytest.mark.parametrize("n_knots", [3, 4, 5, 8])
@pytest.mark.parametrize("within", [(0.0, 1.0), (0.05, 0.95)], ids=["all rows inside", "rows beyond the grid"])
def test_natural_splines_through_the_quantiles_are_reproduced_with_their_slopes(n_knots, within):
    rng = np.random.default_rng(n_knots)
    treatment = rng.gamma(2, size=80)
    grid = np.linspace(*np.quantile(treatment, within), 30)
    knots = quantile_knots(treatment, n_knots)
    assert len(knots) == n_knots
    function, slope = natural_spline(knots, rng.normal(size=n_knots))
    stage = made("spline", treatment, grid, n_knots=n_knots)
    assert stage.n_parameters == n_knots
    curves, slopes = stage.curves(random_weights(rng, 2, 80), function(treatment))
    np.testing.assert_allclose(curves, np.tile(function(grid), (2, 1)), atol=1e-8)
    np.testing.assert_allclose(slopes, np.tile(slope(grid), (2, 1)), atol=1e-7)


def test_the_spline_is_least_squares_on_natural_splines():
    rng = np.random.default_rng(9)
    treatment, outcome = rng.normal(size=60), rng.normal(size=60)
    grid = np.linspace(*np.quantile(treatment, [0.1, 0.9]), 11)
    knots = quantile_knots(treatment, 5)
    cardinal = [natural_spline(knots, row)[0] for row in np.eye(5)]
    weights = random_weights(rng, 1, 60)
    root = np.sqrt(weights[0])[:, None]
    design = np.stack([one(treatment) for one in cardinal], axis=1)
    coefficients = np.linalg.lstsq(root * design, root[:, 0] * outcome)[0]
    wanted = np.stack([one(grid) for one in cardinal], axis=1) @ coefficients
    np.testing.assert_allclose(made("spline", treatment, grid).curves(weights, outcome)[0][0], wanted, atol=1e-9)


def test_the_curve_at_a_dose_does_not_depend_on_the_other_doses():
    rng = np.random.default_rng(15)
    treatment, outcome = rng.gamma(2, size=90), rng.normal(size=90)
    weights, doses = random_weights(rng, 2, 90), np.linspace(0.1, 6, 12)
    curves, slopes = made("spline", treatment, doses).curves(weights, outcome)
    for k in (0, 5, 11):
        alone = made("spline", treatment, doses[k : k + 1]).curves(weights, outcome)
        np.testing.assert_allclose(alone[0][:, 0], curves[:, k], atol=1e-10)
        np.testing.assert_allclose(alone[1][:, 0], slopes[:, k], atol=1e-10)


def test_the_spline_is_linear_beyond_the_middle_of_the_treatments_and_not_in_it():
    treatment = np.linspace(0, 10, 101)
    stage = made("spline", treatment, np.linspace(2, 7, 6))
    bends = np.abs(np.diff(stage.basis, 2, axis=0)).max(axis=1)
    at = treatment[1:-1]
    assert bends[(at < 0.35) | (at > 9.65)].max() < 1e-10
    assert bends[(at > 0.65) & (at < 9.35)].min() > 1e-5


@STAGES
def test_straight_lines_are_reproduced(name):
    rng = np.random.default_rng(1)
    treatment = rng.gamma(2, size=70)
    grid = np.linspace(0.5, 4, 9)
    curves, slopes = made(name, treatment, grid).curves(random_weights(rng, 4, 70), 3 - 2 * treatment)
    np.testing.assert_allclose(curves, np.tile(3 - 2 * grid, (4, 1)), atol=1e-9)
    np.testing.assert_allclose(slopes, -2, atol=1e-9)


@pytest.mark.parametrize("bandwidth", [None, 0.7])
def test_the_local_line_is_weighted_least_squares_around_each_dose(bandwidth):
    rng = np.random.default_rng(3)
    treatment, outcome = rng.normal(size=50), rng.normal(size=50)
    grid = np.array([-0.4, 0.3, 1.1])
    weights = random_weights(rng, 2, 50)
    stage = made("local_linear", treatment, grid, bandwidth=bandwidth)
    wanted = 1.06 * treatment.std() * 50**-0.2 if bandwidth is None else bandwidth
    assert stage.bandwidth == pytest.approx(wanted)
    curves, slopes = stage.curves(weights, outcome)
    for r, one in enumerate(weights):
        for g, dose in enumerate(grid):
            kernel = np.exp(-(((treatment - dose) / wanted) ** 2) / 2)
            slope, level = np.polyfit(treatment - dose, outcome, 1, w=np.sqrt(one * kernel))
            assert curves[r, g] == pytest.approx(level, abs=1e-9)
            assert slopes[r, g] == pytest.approx(slope, abs=1e-9)


@STAGES
@pytest.mark.parametrize(("shift", "scale"), [(1e6, 1e-3), (-50.0, 1e4)])
def test_origin_and_unit_of_the_treatment_change_nothing(name, shift, scale):
    segment = random_segment(150, weighted=True)
    rng = np.random.default_rng(4)
    outcome, weights = np.exp(segment.treatment / 2) + rng.normal(size=150), random_weights(rng, 3, 150)
    grid = np.linspace(-1.5, 1.5, 12)
    curves, slopes = made(name, segment.treatment, grid, segment.sample_weights).curves(weights, outcome)
    moved = made(name, shift + scale * segment.treatment, shift + scale * grid, segment.sample_weights)
    moved_curves, moved_slopes = moved.curves(weights, outcome)
    np.testing.assert_allclose(moved_curves, curves, atol=1e-5)
    np.testing.assert_allclose(moved_slopes * scale, slopes, atol=1e-4)


@STAGES
def test_replicates_at_once_are_replicates_one_at_a_time(name):
    rng = np.random.default_rng(5)
    treatment, outcome = rng.normal(size=60), rng.normal(size=60)
    stage = made(name, treatment, np.linspace(-1, 1, 5))
    weights = random_weights(rng, 6, 60)
    curves, slopes = stage.curves(weights, outcome)
    assert curves.shape == slopes.shape == (6, 5)
    for r in range(6):
        alone = stage.curves(weights[r : r + 1], outcome)
        np.testing.assert_allclose(curves[r], alone[0][0], atol=1e-11)
        np.testing.assert_allclose(slopes[r], alone[1][0], atol=1e-11)


@STAGES
def test_the_smoother_takes_outcomes_to_their_curves(name):
    rng = np.random.default_rng(16)
    treatment, outcome = rng.normal(size=60), rng.normal(size=60)
    stage = made(name, treatment, np.linspace(-1, 1, 5))
    weights = random_weights(rng, 1, 60)
    np.testing.assert_allclose(stage.smoother(weights[0]) @ outcome, stage.curves(weights, outcome)[0][0], atol=1e-10)
    assert stage.functions.shape == (60, stage.n_parameters)
    np.testing.assert_allclose(stage.functions @ np.linalg.pinv(stage.functions) @ treatment, treatment, atol=1e-9)


@STAGES
def test_only_proportions_of_weights_matter_and_rows_without_weight_do_not(name):
    rng = np.random.default_rng(6)
    treatment, outcome = rng.normal(size=60), rng.normal(size=60)
    stage = made(name, treatment, np.linspace(-1, 1, 5))
    weights = random_weights(rng, 1, 60)
    weights[0, :5] = 0
    spoilt = outcome.copy()
    spoilt[:5] = 1e6
    np.testing.assert_allclose(stage.curves(7 * weights, spoilt)[0], stage.curves(weights, outcome)[0], atol=1e-9)


def test_mass_at_zero_leaves_three_knots_and_a_spline():
    rng = np.random.default_rng(7)
    treatment = np.r_[np.zeros(55), rng.gamma(2, size=45)]
    grid = np.linspace(0, treatment.max(), 20)
    knots = quantile_knots(treatment, 5)
    assert len(knots) == 3
    function, slope = natural_spline(knots, np.array([1.0, -2.0, 0.5]))
    stage = made("spline", treatment, grid)
    assert stage.n_parameters == 3
    curves, slopes = stage.curves(random_weights(rng, 1, 100), function(treatment))
    np.testing.assert_allclose(curves[0], function(grid), atol=1e-8)
    np.testing.assert_allclose(slopes[0], slope(grid), atol=1e-7)


def test_three_treatment_levels_give_their_means():
    rng = np.random.default_rng(8)
    treatment, outcome = np.repeat([0.0, 1.0, 2.0], 20), rng.normal(size=60)
    weights = random_weights(rng, 1, 60)
    means = [np.average(outcome[treatment == level], weights=weights[0, treatment == level]) for level in range(3)]
    found = made("spline", treatment, np.array([0.0, 1.0, 2.0])).curves(weights, outcome)[0][0]
    np.testing.assert_allclose(found, means, atol=1e-10)


@pytest.mark.parametrize("n_knots", [5, 8])
@pytest.mark.parametrize("n_levels", [3, 5])
def test_few_treatment_levels_are_the_knots_and_the_curve_goes_through_their_means(n_levels, n_knots):
    rng = np.random.default_rng(12)
    levels = np.cumsum(rng.uniform(0.5, 2, n_levels))
    treatment = np.repeat(levels, rng.integers(2, 30, n_levels))
    weights, outcome = random_weights(rng, 1, len(treatment)), rng.normal(size=len(treatment))
    of_levels = [treatment == level for level in levels]
    means = [np.average(outcome[rows], weights=weights[0, rows]) for rows in of_levels]
    stage = made("spline", treatment, levels, n_knots=n_knots)
    np.testing.assert_allclose(stage.curves(weights, outcome)[0][0], means, atol=1e-9)
    assert stage.n_parameters == n_levels


def test_so_many_treatments_that_neighbours_hardly_differ_are_many_distinct_ones():
    treatment = np.random.default_rng(14).normal(size=20_000)
    stage = made("spline", treatment, np.linspace(-1.5, 1.5, 7))
    assert stage.n_parameters == 5
    np.testing.assert_allclose(stage.at_grid[3], made("spline", treatment + 1, np.linspace(-0.5, 2.5, 7)).at_grid[3])


def test_nine_tenths_at_zero_leave_one_bend():
    rng = np.random.default_rng(13)
    treatment = np.r_[np.zeros(90), np.arange(1.0, 11.0)]
    grid = np.linspace(0, 10, 11)
    # The 95% quantile is 5.5; of the treatments up to there, but for the outermost, 2.5 is the median.
    function, slope = natural_spline(np.array([0.0, 2.5, 5.5]), np.array([1.0, -2.0, 0.5]))
    stage = made("spline", treatment, grid)
    curves, slopes = stage.curves(random_weights(rng, 2, 100), function(treatment))
    np.testing.assert_allclose(curves[0], function(grid), atol=1e-8)
    np.testing.assert_allclose(slopes[0], slope(grid), atol=1e-7)


@pytest.mark.parametrize(
    ("treatment", "grid"),
    [
        (np.repeat([0.0, 1.0], [30, 10]), [0.0, 1.0]),
        (np.repeat([0.0, 1.0], 20), [0.0, 1.0]),
        (np.repeat([0.0, 1.0], 20), [0.2, 0.8]),
    ],
    ids=["binary", "a quantile between two values", "none within the grid"],
)
def test_too_few_distinct_treatments_for_a_spline_are_declined(treatment, grid):
    doses = np.linspace(*grid, 10)
    with pytest.raises(TreatmentSupportError, match="too few distinct values") as raised:
        made("spline", treatment, doses)
    assert "line" in raised.value.hint
    made("line", treatment, doses)


def test_only_the_line_is_called_one():
    segment = random_segment(60)
    grid = np.linspace(-1, 1, 5)
    kinds = {name: curve_problem(segment, grid, name, StageOptions()) for name in SECOND_STAGES}
    assert {name: one.is_line for name, one in kinds.items()} == {"line": True, "spline": False, "local_linear": False}
    assert {name: one.stage.n_parameters for name, one in kinds.items()} == {"line": 2, "spline": 5, "local_linear": 2}
    assert all(one.segment is segment and one.grid is grid for one in kinds.values())


def test_quantiles_under_equal_weights_are_hazens_and_order_does_not_matter():
    rng = np.random.default_rng(11)
    values, shares = rng.normal(size=37), np.linspace(0.02, 0.98, 9)
    found = weighted_quantiles(values, np.full(37, 1 / 37), shares)
    np.testing.assert_allclose(found, np.quantile(values, shares, method="hazen"), atol=1e-12)
    weights, order = random_weights(rng, 1, 37)[0], rng.permutation(37)
    np.testing.assert_allclose(
        weighted_quantiles(values[order], weights[order], shares), weighted_quantiles(values, weights, shares)
    )
