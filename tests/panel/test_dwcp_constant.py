"""DWCP with one constant effect against its formula written out in loops, its equivariances and its tuning."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from causal_spark.errors import (
    ConstantOutcomeError,
    NotIdentifiedError,
    NoTreatedCellsError,
    UnsupportedCovariatesError,
)
from causal_spark.panel.constancy import read_block
from causal_spark.panel.constant_effect import MAX_GROUPS, constant_fits, contrasts, event_groups
from causal_spark.panel.dwcp_constant import DwcpConstantOptions, dwcp_constant, dwcp_constant_cost
from causal_spark.panel.summary import att, summarise
from causal_spark.panel.tuning import LAMBDA_NN_FLOOR, standardised
from causal_spark.panel.types import Floats, Panel, PanelSize, Penalties
from tests.panel import panels
from tests.panel.test_dwcp import PATTERNS, pattern_panel
from tests.panel.test_low_rank import oracle

GIVEN = Penalties(0.3, 0.6, 0.2)
FEW = DwcpConstantOptions(
    lambda_time=(0.0, 0.4),
    lambda_unit=(0.0, 0.6),
    lambda_nn=(math.inf, 0.3),
    unit_placebos=3,
    time_placebos=2,
    bootstraps=3,
)


def loop_weights(panel: Panel, standard: Floats, penalties: Penalties) -> Floats:
    """omega_j theta_s, each of maximum 1, of all observed cells that the fit uses."""
    cells = [(int(i), int(t)) for i, t in np.argwhere(panel.target_cells)]
    middle = sum(t for _, t in cells) / len(cells)
    treated = sorted({i for i, _ in cells})
    path = {}
    for s in range(panel.n_periods):
        values = [standard[i, s] for i in treated if panel.control_cells[i, s]]
        if values:
            path[s] = sum(values) / len(values)
    distance = []
    for j in range(panel.n_units):
        common = [s for s in path if panel.control_cells[j, s]]
        squares = [(standard[j, s] - path[s]) ** 2 for s in common]
        distance.append(0.0 if j in treated else math.sqrt(sum(squares) / len(common)) if common else math.nan)
    farthest = max(d for d in distance if not math.isnan(d))
    nearest = min(abs(s - middle) for s in range(panel.n_periods))
    weights = np.zeros(panel.outcome.shape)
    for j in range(panel.n_units):
        far = farthest if math.isnan(distance[j]) else distance[j]
        for s in range(panel.n_periods):
            if panel.observed[j, s]:
                time = (penalties.lambda_time or 0.0) * (abs(s - middle) - nearest)
                weights[j, s] = math.exp(-time - (penalties.lambda_unit or 0.0) * far)
    return weights


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("penalties", [Penalties(0.0, 0.0, 0.5), GIVEN, Penalties(0.4, 1.0, math.inf)])
def test_effect_and_fit_equal_the_oracles_at_the_formulas_weights(pattern: str, penalties: Penalties) -> None:
    panel = pattern_panel(pattern)
    panel = replace(panel, outcome=panel.outcome + 0.7 * panel.treated)
    _, centre, scale = standardised(panel)
    standard = np.where(panel.observed, (panel.outcome - centre) / scale, 0.0)
    weights = loop_weights(panel, standard, penalties)
    # A penalty of 1e6 leaves no low-rank part.
    nn = min(penalties.lambda_nn or 0.0, 1e6)
    slow = oracle(standard, weights, nn, 6000, panel.treated[None].astype(float))
    fit = dwcp_constant(panel, DwcpConstantOptions(tolerance=1e-8), penalties)
    assert fit.converged
    assert fit.tuning == "fixed"
    assert att(panel, fit) == pytest.approx(float(slow.coefficients[0]) * scale, abs=2e-5)
    effects = (panel.outcome - fit.counterfactual)[panel.target_cells]
    np.testing.assert_allclose(effects, effects[0], atol=1e-12)
    cells = panel.control_cells & panel.ever_treated[:, None]
    np.testing.assert_allclose(fit.counterfactual[cells], slow.prediction[cells] * scale + centre, atol=2e-4)
    assert np.isnan(fit.counterfactual[~panel.ever_treated]).all()


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("scale", "shift", "effect"), [(1e-6, 0.0, 0.0), (-1e9, 5.0, 0.0), (1.0, 1e5, 3.0)])
def test_scale_shift_and_a_constant_effect_are_followed_exactly(
    pattern: str, scale: float, shift: float, effect: float
) -> None:
    panel = pattern_panel(pattern)
    options = DwcpConstantOptions(tolerance=1e-9)
    base = att(panel, dwcp_constant(panel, options, GIVEN))
    moved = replace(panel, outcome=scale * (panel.outcome + shift + effect * panel.treated))
    found = att(moved, dwcp_constant(moved, options, GIVEN))
    assert found / scale == pytest.approx(base + effect, abs=1e-6)


@pytest.mark.parametrize(("n_treated", "n_post"), [(1, 4), (3, 1), (1, 1)])
def test_one_unit_and_one_period_suffice(n_treated: int, n_post: int) -> None:
    panel = panels.block_panel(12, 14, n_treated, n_post, effect=5.0, seed=2)
    fit = dwcp_constant(panel, FEW)
    assert fit.tuning == "block"
    assert fit.converged
    assert abs(att(panel, fit) - 5.0) < 1.0
    assert fit.constancy is not None
    assert (fit.constancy.p_value is None) == (n_post == 1)


def test_units_without_untreated_cells_are_left_out_and_counted() -> None:
    panel = panels.block_panel(10, 9, 2, 3, effect=1.0, seed=3)
    treated = panel.treated.copy()
    treated[0] = True
    outcome = panel.outcome.copy()
    outcome[0] += 50.0
    whole = panels.panel_of(outcome, treated)
    fit = dwcp_constant(whole, penalties=GIVEN)
    assert np.isnan(fit.counterfactual[0]).all()
    assert summarise(whole, fit).n_cells_not_identified == 9
    without = whole.take_units(np.arange(1, 10))
    assert att(whole, fit) == pytest.approx(att(without, dwcp_constant(without, penalties=GIVEN)), abs=1e-6)


def test_periods_in_which_all_are_treated_are_left_out_and_counted() -> None:
    panel = panels.block_panel(10, 9, 2, 3, seed=4)
    treated = panel.treated.copy()
    treated[:, -1] = True
    whole = panel.with_treatment(treated)
    fit = dwcp_constant(whole, penalties=GIVEN)
    assert np.isnan(fit.counterfactual[:, -1]).all()
    assert summarise(whole, fit).n_cells_not_identified == 10
    short = replace(
        panel,
        outcome=panel.outcome[:, :-1],
        treated=panel.treated[:, :-1],
        observed=panel.observed[:, :-1],
        periods=panel.periods[:-1],
    )
    assert att(whole, fit) == pytest.approx(att(short, dwcp_constant(short, penalties=GIVEN)), abs=1e-6)


def test_tuning_repeats_itself_and_follows_the_seed() -> None:
    panel = panels.block_panel(12, 16, 2, 4, seed=5)
    first = dwcp_constant(panel, FEW, seed=1)
    again = dwcp_constant(panel, FEW, seed=1)
    assert first.path == again.path
    assert first.penalties == again.penalties
    np.testing.assert_array_equal(first.counterfactual, again.counterfactual)
    assert dwcp_constant(panel, FEW, seed=2).path != first.path
    assert first.criterion == pytest.approx(min(step.criterion for step in first.path), rel=1e-8)
    assert len(first.path) == 5


@pytest.mark.parametrize("starts", [(12, 12), (10, 13)], ids=["block", "staggered"])
@pytest.mark.parametrize("shape", ["constant", "ramp"])
def test_tuning_does_not_see_an_effect_common_to_the_treated_units(starts: tuple[int, int], shape: str) -> None:
    panel = panels.staggered_panel(12, 16, starts, seed=6)
    since = np.arange(16) - np.array([16] * 10 + list(starts))[:, None]
    effect = np.where(panel.treated, 40.0 if shape == "constant" else 5.0 * (since + 1), 0.0)
    base, moved = (
        dwcp_constant(replace(panel, outcome=panel.outcome + add), FEW, seed=3) for add in (0.0 * effect, effect)
    )
    assert moved.penalties == base.penalties
    np.testing.assert_allclose(
        [step.criterion for step in moved.path], [step.criterion for step in base.path], rtol=1e-3
    )


@pytest.mark.parametrize("pattern", PATTERNS)
def test_any_pattern_is_tuned(pattern: str) -> None:
    panel = pattern_panel(pattern)
    fit = dwcp_constant(panel, FEW)
    assert fit.tuning == "block"
    assert fit.converged
    assert abs(att(panel, fit)) < 1.5


def test_a_panel_without_panels_to_tune_on_is_left_unweighted() -> None:
    panel = panels.panel_of(panels.untreated_outcomes(2, 5, seed=7), panels.treated_from(2, 5, [3]))
    fit = dwcp_constant(panel, replace(FEW, bootstraps=0))
    assert fit.tuning == "none"
    assert fit.penalties == Penalties(0.0, 0.0, math.inf)
    assert fit.path == ()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda panel: panel.with_treatment(np.zeros_like(panel.treated)), NoTreatedCellsError),
        (lambda panel: panel.with_treatment(np.repeat(panel.treated[-1:], 9, axis=0)), NotIdentifiedError),
        (lambda panel: replace(panel, outcome=np.full(panel.outcome.shape, 0.1)), ConstantOutcomeError),
        (lambda panel: replace(panel, covariates=panel.outcome[:, :, None]), UnsupportedCovariatesError),
    ],
    ids=["nobody", "no controls", "constant", "covariates"],
)
def test_what_has_no_meaning_is_declined(change: Callable[[Panel], Panel], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        dwcp_constant(change(pattern_panel("block")), FEW)
    assert caught.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize("penalties", [Penalties(-1.0), Penalties(0.0, 0.0, 0.5 * LAMBDA_NN_FLOOR)])
def test_given_penalties_out_of_range_are_refused(penalties: Penalties) -> None:
    with pytest.raises(ValueError, match="lambda"):
        dwcp_constant(pattern_panel("block"), penalties=penalties)


@pytest.mark.parametrize(
    ("field", "value"),
    [("lambda_time", (-1.0,)), ("lambda_nn", (0.0,)), ("lambda_unit", ()), ("tolerance", 0.5), ("bootstraps", -1)],
)
def test_options_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        DwcpConstantOptions(**{field: value})  # type: ignore[arg-type]


def test_one_effect_per_group_takes_each_groups_own_effect() -> None:
    panel = panels.block_panel(12, 14, 2, 4, seed=8)
    block = read_block(panel)
    groups = event_groups(block.treated)[None]
    ones = np.ones(1)
    settings = (0.3 * ones, 0.5 * ones, 0.2 * ones)
    base = constant_fits(block.panels, *settings, groups=groups, n_groups=4, tolerance=1e-9).effects[0]
    added = np.array([1.0, -2.0, 3.0, 0.5])
    moved = replace(block, standard=block.standard + np.where(groups[0] >= 0, added[groups[0]], 0.0))
    found = constant_fits(moved.panels, *settings, groups=groups, n_groups=4, tolerance=1e-9).effects[0]
    np.testing.assert_allclose(found, base + added, atol=1e-6)


def test_event_groups_count_periods_since_the_first_treated_one() -> None:
    treated = panels.treated_from(4, 30, (27, 25))
    groups = event_groups(treated)
    assert groups[2, 27:].tolist() == [0, 1, 2]
    assert groups[3, 25:].tolist() == [0, 1, 2, 3, 4]
    assert (groups[~treated] == -1).all()
    many = event_groups(panels.treated_from(3, 40, [10]))
    sizes = np.bincount(many[many >= 0])
    assert sizes.size == MAX_GROUPS
    assert sizes.max() - sizes.min() <= 1
    assert (np.diff(many[2, 10:]) >= 0).all()


@pytest.mark.parametrize(("n", "k"), [(2, 1), (3, 2), (10, 2)])
def test_contrasts_are_orthogonal_to_a_constant_and_to_each_other(n: int, k: int) -> None:
    found = contrasts(n)
    assert found.shape == (k, n)
    np.testing.assert_allclose(found.sum(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(found @ found.T, np.eye(k) / n, atol=1e-12)
    assert (np.diff(found[0]) > 0).all()


def test_cost_grows_with_the_panel_and_with_tuning() -> None:
    small, large = PanelSize(39, 31, 1, 12), PanelSize(200, 60, 10, 100)
    assert 0 < dwcp_constant_cost(small, FEW, False) < dwcp_constant_cost(small, FEW, True)
    assert dwcp_constant_cost(small) < dwcp_constant_cost(large)
