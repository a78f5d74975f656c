"""DWCP against its formula written out in loops, its special cases, its tuning and what it declines."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from causal_spark.errors import ConstantOutcomeError, NotIdentifiedError, NoTreatedCellsError
from causal_spark.panel import single_cells
from causal_spark.panel.calibration_panels import placebo_panels
from causal_spark.panel.did import did
from causal_spark.panel.dwcp import DwcpOptions, dwcp, dwcp_cost
from causal_spark.panel.mc import McOptions, mc
from causal_spark.panel.single_cells import SingleCells
from causal_spark.panel.tuning import LAMBDA_NN_FLOOR, Triple, search, standardised
from causal_spark.panel.two_way import identified_cells, two_way_covariate_fit, two_way_fit
from causal_spark.panel.types import Floats, Panel, PanelSize, Penalties
from tests.panel import panels
from tests.panel.test_low_rank import oracle

SMALL_GRID = DwcpOptions((0.0, 0.5), (0.0, 1.0), (math.inf, 1.0), tuning="loocv")


def formula_weights(panel: Panel, i: int, t: int, penalties: Penalties) -> Floats:
    """theta_s omega_j (1 - W_js) of the target cell (i, t), in loops."""
    y = panel.outcome / panel.outcome[panel.control_cells].std()
    controls = panel.control_cells
    weights = np.zeros(y.shape)
    distances = []
    for j in range(panel.n_units):
        common = [u for u in range(panel.n_periods) if u != t and controls[i, u] and controls[j, u]]
        distances.append(math.sqrt(sum((y[i, u] - y[j, u]) ** 2 for u in common) / len(common)) if common else math.nan)
    farthest = np.nanmax(distances)
    for j in range(panel.n_units):
        distance = 0.0 if j == i else farthest if math.isnan(distances[j]) else distances[j]
        for s in range(panel.n_periods):
            if controls[j, s] and (j, s) != (i, t):
                weights[j, s] = math.exp(
                    -(penalties.lambda_time or 0) * abs(t - s) - (penalties.lambda_unit or 0) * distance
                )
    return weights


def pattern_panel(pattern: str, n_units: int = 9, n_periods: int = 8) -> Panel:
    outcome = panels.untreated_outcomes(n_units, n_periods, seed=11)
    treated = np.zeros(outcome.shape, dtype=bool)
    if pattern == "block":
        treated[-2:, -3:] = True
    elif pattern == "staggered":
        treated[2, 4:] = treated[5, 6:] = True
    elif pattern == "on and off":
        treated[1, 2:4] = treated[1, 6] = treated[4, ::3] = True
    elif pattern == "single cell":
        treated[3, -1] = True
    else:
        treated[-2:, -3:] = True
        outcome[np.random.default_rng(2).random(outcome.shape) < 0.15] = np.nan
    return panels.panel_of(outcome, treated)


PATTERNS = ["block", "staggered", "on and off", "single cell", "missing"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "penalties", [Penalties(0.0, 0.0, math.inf), Penalties(0.4, 0.0, math.inf), Penalties(0.2, 1.5, math.inf)]
)
def test_additive_predictions_equal_a_refit_with_the_cell_left_out(pattern: str, penalties: Penalties) -> None:
    # Control cells of treated units are left out too, which checks e / (1 - h) where that is used.
    panel = pattern_panel(pattern)
    fit = dwcp(panel, penalties=penalties)
    checked = panel.target_cells | (panel.control_cells & panel.ever_treated[:, None])
    for i, t in np.argwhere(checked):
        weights = formula_weights(panel, i, t, penalties)
        linked = identified_cells(weights > 0)[i, t]
        assert np.isfinite(fit.counterfactual[i, t]) == linked
        if linked:
            assert fit.counterfactual[i, t] == pytest.approx(two_way_fit(panel.outcome, weights)[i, t], abs=1e-9)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("penalties", [Penalties(0.0, 0.5, 0.6), Penalties(0.3, 0.8, 0.15)])
def test_low_rank_predictions_equal_the_oracle_at_the_formulas_weights(pattern: str, penalties: Penalties) -> None:
    panel = pattern_panel(pattern)
    fit = dwcp(panel, DwcpOptions(tolerance=1e-7), penalties)
    y, centre, scale = standardised(panel)
    assert fit.converged
    for i, t in np.argwhere(panel.target_cells)[:2]:
        slow = oracle(y, formula_weights(panel, i, t, penalties), penalties.lambda_nn or 0.0, 6000)
        assert fit.counterfactual[i, t] == pytest.approx(slow.prediction[i, t] * scale + centre, abs=2e-5)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_equal_weights_give_did_and_mc(pattern: str) -> None:
    panel = pattern_panel(pattern)
    targets = panel.target_cells
    additive = dwcp(panel, penalties=Penalties(0.0, 0.0, math.inf)).counterfactual
    np.testing.assert_allclose(additive[targets], did(panel).counterfactual[targets], atol=1e-9)
    penalties = Penalties(0.0, 0.0, 0.5)
    completed = mc(panel, McOptions(tolerance=1e-7), penalties).counterfactual
    own = dwcp(panel, DwcpOptions(tolerance=1e-7), penalties).counterfactual
    np.testing.assert_allclose(own[targets], completed[targets], atol=1e-6)


@pytest.mark.parametrize("method", ["cyclic", "grid"])
def test_tuning_chooses_the_smallest_leave_one_out_error(method: str) -> None:
    panel = panels.block_panel(10, 8, 1, 2, seed=5)
    fit = dwcp(panel, replace(SMALL_GRID, search=method))
    chosen = fit.penalties
    assert fit.tuning == "loocv"
    assert fit.criterion == pytest.approx(min(step.criterion for step in fit.path), rel=1e-8)
    # The criterion of the chosen triple, from scratch: every control cell predicted by its own fit.
    y, _, _ = standardised(panel)
    errors = []
    for i, t in np.argwhere(panel.control_cells):
        one = np.zeros_like(panel.treated)
        one[i, t] = True
        alone = replace(panel, outcome=y, observed=panel.control_cells | one, treated=one)
        errors.append(y[i, t] - dwcp(alone, DwcpOptions(), rescaled(alone, chosen)).counterfactual[i, t])
    assert fit.criterion == pytest.approx(np.mean(np.square(errors)), rel=5e-3)
    if method == "grid":
        assert len(fit.path) == 8


def rescaled(panel: Panel, penalties: Penalties) -> Penalties:
    """Penalties on the scale of this panel's own control cells that mean the same as ``penalties`` on scale 1."""
    scale = panel.outcome[panel.control_cells].std()
    unit, nn = penalties.lambda_unit or 0.0, penalties.lambda_nn or 0.0
    return replace(penalties, lambda_unit=unit * scale, lambda_nn=nn / scale)


@pytest.mark.parametrize("method", ["cyclic", "grid"])
def test_abandoning_candidates_does_not_change_the_winner(method: str) -> None:
    def landscape(triple: Triple) -> float:
        time, unit, nn = triple
        return (time - 0.5) ** 2 + (unit - 2 * time) ** 2 + (0.0 if nn == 1.0 else 0.3) + 0.1 * time * unit

    def whole(triple: Triple, rival: Triple | None) -> tuple[float, bool]:
        return landscape(triple), True

    def hasty(triple: Triple, rival: Triple | None) -> tuple[float, bool]:
        value = landscape(triple)
        bound = math.inf if rival is None else landscape(rival)
        return (value, True) if value <= bound else (bound + 0.01 * (value - bound), False)

    grids = ((0.0, 0.25, 0.5, 1.0), (0.0, 0.5, 1.0, 2.0), (math.inf, 3.0, 1.0, 0.3))
    chosen, _ = search(whole, *grids, method)  # type: ignore[arg-type]
    quick, path = search(hasty, *grids, method)  # type: ignore[arg-type]
    assert quick == chosen
    assert min(step.criterion for step in path) == pytest.approx(landscape(chosen))


@pytest.mark.parametrize(("scale", "shift"), [(1e-9, 0.0), (1e12, 0.0), (1.0, 1e6), (-2.0, 3.0)])
def test_dwcp_is_equivariant_to_scale_and_shift(scale: float, shift: float) -> None:
    panel = panels.block_panel(10, 8, 1, 2, seed=6)
    base = dwcp(panel, SMALL_GRID)
    moved = dwcp(replace(panel, outcome=scale * (panel.outcome + shift)), SMALL_GRID)
    assert moved.penalties == base.penalties
    cells = panel.target_cells
    np.testing.assert_allclose(moved.counterfactual[cells] / scale - shift, base.counterfactual[cells], atol=1e-5)


def test_dwcp_repeats_its_bits_and_does_not_depend_on_the_order_of_units() -> None:
    panel = panels.staggered_panel(10, 8, (5, 6), seed=8)
    penalties = Penalties(0.2, 0.5, 0.5)
    first = dwcp(panel, penalties=penalties).counterfactual
    np.testing.assert_array_equal(dwcp(panel, penalties=penalties).counterfactual, first)
    order = np.random.default_rng(0).permutation(panel.n_units)
    shuffled = dwcp(panel.take_units(order), penalties=penalties).counterfactual
    cells = panel.target_cells
    np.testing.assert_allclose(shuffled[cells[order]], first[order][cells[order]], atol=1e-5)


def test_target_cells_do_not_depend_on_other_treated_outcomes() -> None:
    panel = pattern_panel("staggered")
    changed = replace(panel, outcome=np.where(panel.treated, -1e9, panel.outcome))
    for penalties in (Penalties(0.3, 0.5, math.inf), Penalties(0.3, 0.5, 0.3)):
        expected = dwcp(panel, penalties=penalties).counterfactual
        np.testing.assert_array_equal(dwcp(changed, penalties=penalties).counterfactual, expected)


@pytest.mark.parametrize("nn", [math.inf, 0.1])
@pytest.mark.parametrize(("time", "unit"), [(50.0, 0.0), (0.0, 500.0), (1e6, 1e6)])
def test_weights_that_underflow_still_give_a_prediction(time: float, unit: float, nn: float) -> None:
    panel = pattern_panel("block")
    fit = dwcp(panel, penalties=Penalties(time, unit, nn))
    prediction = fit.counterfactual[panel.target_cells]
    spread = np.ptp(panel.outcome)
    assert fit.converged
    assert (np.abs(prediction - panel.outcome.mean()) < 4 * spread).all()


def exact_two_way(outcome: Floats, weights: Floats, i: int, t: int) -> float:
    """alpha_i + beta_t by weighted normal equations in rational arithmetic, the first period grounded."""
    n_units, n_periods = outcome.shape
    size = n_units + n_periods - 1
    rows = [[Fraction(0)] * (size + 1) for _ in range(size)]
    for j, s in np.argwhere(weights > 0):
        weight, value = Fraction(float(weights[j, s])), Fraction(float(outcome[j, s]))
        involved = [int(j)] + ([n_units + int(s) - 1] if s > 0 else [])
        for a in involved:
            rows[a][size] += weight * value
            for b in involved:
                rows[a][b] += weight
    for k in range(size):
        pivot = next(r for r in range(k, size) if rows[r][k] != 0)
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [entry / rows[k][k] for entry in rows[k]]
        for r in range(size):
            if r != k and rows[r][k] != 0:
                rows[r] = [a - rows[r][k] * b for a, b in zip(rows[r], rows[k], strict=True)]
    return float(rows[i][size] + (rows[n_units + t - 1][size] if t > 0 else 0))


@pytest.mark.parametrize("pattern", ["block", "staggered", "on and off"])
@pytest.mark.parametrize(("time", "unit"), [(1.0, 20.0), (8.0, 0.0), (20.0, 40.0), (0.0, 150.0)])
def test_extreme_weights_give_what_exact_arithmetic_gives(pattern: str, time: float, unit: float) -> None:
    panel = pattern_panel(pattern, 7, 7)
    penalties = Penalties(time, unit, math.inf)
    fit = dwcp(panel, penalties=penalties)
    for i, t in np.argwhere(panel.ever_treated[:, None] & np.isfinite(fit.counterfactual)):
        exact = exact_two_way(panel.outcome, formula_weights(panel, i, t, penalties), i, t)
        assert fit.counterfactual[i, t] == pytest.approx(exact, abs=1e-7)


def test_proposition_99_with_equal_weights_is_did() -> None:
    # Arkhangelsky et al. (2021), Table 1, DiD: -27.3491.
    panel = panels.prop99()
    fit = dwcp(panel, penalties=Penalties(0.0, 0.0, math.inf))
    assert (panel.outcome - fit.counterfactual)[panel.target_cells].mean() == pytest.approx(-27.3491, abs=1e-3)


def test_nearest_neighbours_alone_are_followed_when_unit_weights_are_sharp() -> None:
    # One donor is the treated unit's twin up to a constant; with sharp weights its change is the prediction.
    panel = pattern_panel("block")
    outcome = panel.outcome.copy()
    outcome[0] = outcome[-1] + 1e-3
    twin = panels.panel_of(outcome, panel.treated)
    fit = dwcp(twin, penalties=Penalties(0.0, 200.0, math.inf))
    np.testing.assert_allclose(fit.counterfactual[-1, -3:], outcome[0, -3:] - 1e-3, atol=1e-6)


@pytest.mark.parametrize("nn", [math.inf, 0.5])
def test_cells_without_a_link_to_control_cells_are_not_predicted(nn: float) -> None:
    panel = pattern_panel("block")
    treated = panel.treated.copy()
    treated[:, -1] = True
    fit = dwcp(panel.with_treatment(treated), penalties=Penalties(0.1, 0.1, nn))
    assert np.isnan(fit.counterfactual[:, -1]).all()
    assert np.isfinite(fit.counterfactual[-2:, -3:-1]).all()


def test_a_panel_too_small_for_leave_one_out_is_estimated_without_tuning() -> None:
    panel = panels.panel_of(np.array([[1.0, 2.0], [3.0, 9.0]]), np.array([[False, False], [False, True]]))
    fit = dwcp(panel)
    assert fit.tuning == "none"
    assert fit.counterfactual[1, 1] == pytest.approx(4.0)


def _no_controls(panel: Panel) -> Panel:
    return panel.with_treatment(np.repeat(panel.treated[-1:], panel.n_units, axis=0))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda panel: panel.with_treatment(np.zeros_like(panel.treated)), NoTreatedCellsError),
        (_no_controls, NotIdentifiedError),
        (lambda panel: replace(panel, outcome=np.full(panel.outcome.shape, 0.1)), ConstantOutcomeError),
    ],
    ids=["nobody", "no controls", "constant"],
)
def test_dwcp_declines_what_has_no_meaning(change: Callable[[Panel], Panel], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        dwcp(change(pattern_panel("block")), SMALL_GRID)
    assert caught.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lambda_time", (-1.0,)),
        ("lambda_time", ()),
        ("lambda_unit", (math.inf,)),
        ("lambda_nn", (0.0, 1.0)),
        ("lambda_nn", (0.99 * LAMBDA_NN_FLOOR,)),
        ("tuning", "gcv"),
        ("unit_placebos", -1),
        ("lambda_nn", (math.nan,)),
        ("search", "random"),
        ("cv_tolerance", 1.0),
        ("tolerance", 0.0),
    ],
)
def test_options_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        DwcpOptions(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "penalties", [Penalties(-1.0, 0.0, 1.0), Penalties(0.0, math.inf, 1.0), Penalties(0.0, 0.0, 0.99 * LAMBDA_NN_FLOOR)]
)
def test_given_penalties_out_of_range_are_refused(penalties: Penalties) -> None:
    with pytest.raises(ValueError, match="lambda"):
        dwcp(pattern_panel("block"), penalties=penalties)


def test_dwcp_cost_grows_with_the_panel_the_grid_and_with_tuning() -> None:
    small, large = PanelSize(39, 31, 1, 12), PanelSize(100, 50, 1, 12)
    assert 0 < dwcp_cost(small, DwcpOptions(), False) < dwcp_cost(small, DwcpOptions(), True)
    assert dwcp_cost(small, DwcpOptions(), True) < dwcp_cost(large, DwcpOptions(), True)
    additive = DwcpOptions(lambda_nn=(math.inf,))
    assert dwcp_cost(small, additive, True) < dwcp_cost(small, DwcpOptions(), True)


def with_covariates(panel: Panel, seed: int = 3) -> Panel:
    """Two covariates that move the outcome; where treated they are shifted, so leaving them out shows."""
    x = np.random.default_rng(seed).normal(size=(*panel.outcome.shape, 2)) + 6.0 * panel.treated[:, :, None]
    return replace(panel, outcome=panel.outcome + x @ [0.5, -1.0], covariates=x)


@pytest.mark.parametrize("pattern", ["block", "missing"])
@pytest.mark.parametrize("penalties", [Penalties(0.0, 0.0, math.inf), Penalties(0.2, 0.8, math.inf)])
def test_additive_predictions_with_covariates_equal_a_weighted_regression(pattern: str, penalties: Penalties) -> None:
    panel = with_covariates(pattern_panel(pattern))
    fit = dwcp(panel, penalties=penalties)
    assert panel.covariates is not None
    cells = panel.target_cells | (panel.control_cells & panel.ever_treated[:, None])
    for i, t in np.argwhere(cells):
        weights = formula_weights(panel, i, t, penalties)
        expected = two_way_covariate_fit(panel.outcome, weights, panel.covariates).fitted[i, t]
        assert fit.counterfactual[i, t] == pytest.approx(expected, abs=1e-8, nan_ok=True)


@pytest.mark.parametrize("pattern", ["block", "missing"])
@pytest.mark.parametrize("penalties", [Penalties(0.0, 0.0, 0.5), Penalties(0.3, 0.8, 0.15)])
def test_low_rank_predictions_with_covariates_equal_the_oracle(pattern: str, penalties: Penalties) -> None:
    panel = with_covariates(pattern_panel(pattern))
    fit = dwcp(panel, penalties=penalties)
    y, centre, scale = standardised(panel)
    assert panel.covariates is not None
    assert fit.converged
    x = np.moveaxis(panel.covariates, 2, 0)
    before = np.argwhere(panel.control_cells & panel.ever_treated[:, None])[:1]
    for (i, t), tolerance in [(np.argwhere(panel.target_cells)[0], 2e-5), (before[0], 2e-3)]:
        slow = oracle(y, formula_weights(panel, i, t, penalties), penalties.lambda_nn or 0.0, 6000, x)
        assert fit.counterfactual[i, t] == pytest.approx(slow.prediction[i, t] * scale + centre, abs=tolerance)


@pytest.mark.parametrize("nn", [math.inf, 0.3])
def test_collinear_covariates_change_nothing(nn: float) -> None:
    panel = with_covariates(pattern_panel("block"))
    assert panel.covariates is not None
    x = panel.covariates
    constant = np.broadcast_to(np.arange(float(panel.n_units))[:, None, None], (*panel.outcome.shape, 1))
    more = replace(panel, covariates=np.concatenate([x, x @ [[3.0], [1.0]], constant], axis=2))
    penalties = Penalties(0.2, 0.5, nn)
    expected = dwcp(panel, penalties=penalties).counterfactual
    np.testing.assert_allclose(dwcp(more, penalties=penalties).counterfactual, expected, atol=2e-6)


@pytest.mark.parametrize("nn", [math.inf, 0.3])
def test_a_covariate_of_one_control_cell_takes_that_cell_out(nn: float) -> None:
    panel = pattern_panel("block")
    x = np.zeros((*panel.outcome.shape, 1))
    x[-1, 2] = 1.0
    penalties = Penalties(0.2, 0.5, nn)
    found = dwcp(replace(panel, covariates=x), penalties=penalties).counterfactual
    expected = dwcp(panel, penalties=penalties).counterfactual
    assert np.isnan(found[-1, 2])
    expected[-1, 2] = np.nan
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    # Distances know that cell's outcome; the fit does not.
    y, centre, scale = standardised(panel)
    weights = formula_weights(panel, panel.n_units - 1, panel.n_periods - 1, penalties)
    weights[-1, 2] = 0.0
    slow = two_way_fit(y, weights) if math.isinf(nn) else oracle(y, weights, nn, 6000).prediction
    assert found[-1, -1] == pytest.approx(slow[-1, -1] * scale + centre, abs=2e-5)
    assert abs(found[-1, -1] - expected[-1, -1]) > 1e-3


@pytest.mark.parametrize("nn", [math.inf, 0.3])
def test_a_treated_cell_whose_covariates_move_as_no_control_cells_do_is_not_predicted(nn: float) -> None:
    panel = pattern_panel("block")
    x = np.zeros((*panel.outcome.shape, 1))
    x[-1, -1] = 1.0
    penalties = Penalties(0.2, 0.5, nn)
    expected = dwcp(panel, penalties=penalties).counterfactual
    found = dwcp(replace(panel, covariates=x), penalties=penalties).counterfactual
    assert np.isnan(found[-1, -1])
    others = np.isfinite(expected)
    others[-1, -1] = False
    np.testing.assert_allclose(found[others], expected[others], atol=1e-6)


@pytest.mark.parametrize(
    ("triple", "n_fits"),
    [((0.3, 0.0, 0.3), 4), ((0.0, 0.6, 0.3), 2), ((0.0, 0.0, 0.3), 1), ((0.3, 0.6, 0.3), 6)],
    ids=["by period", "by unit", "all", "none"],
)
def test_treated_cells_with_equal_weights_share_a_fit(
    triple: tuple[float, float, float], n_fits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = pattern_panel("staggered")
    y, _, _ = standardised(panel)
    cells = SingleCells(y, panel.control_cells)
    rows, columns = np.nonzero(panel.target_cells)
    alone = [cells.predict(rows[[k]], columns[[k]], triple, 1e-8)[0][0] for k in range(rows.size)]
    solved = []
    solve = single_cells.low_rank_fit

    def counted(*args: object, **kwargs: object) -> object:
        solved.append(args[2].size)  # type: ignore[attr-defined]
        return solve(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(single_cells, "low_rank_fit", counted)
    together, _, converged = cells.predict(rows, columns, triple, 1e-8)
    assert converged
    assert sum(solved) == n_fits
    np.testing.assert_allclose(together, alone, atol=1e-7)


@pytest.mark.parametrize("triple", [(0.3, 0.0, 0.3), (0.2, 0.4, 0.3), (0.3, 0.0, math.inf), (0.0, 0.0, 0.3)])
def test_cells_predicted_in_chunks_equal_those_predicted_at_once(triple: tuple[float, float, float]) -> None:
    panel = pattern_panel("staggered")
    y, _, _ = standardised(panel)
    cells = SingleCells(y, panel.control_cells)
    rows, columns = np.nonzero(panel.target_cells | panel.ever_treated[:, None])
    expected = np.full(y.shape, np.nan)
    expected[rows, columns] = cells.predict(rows, columns, triple, 1e-8)[0]
    cells.chunk = 2
    found, n_cells = np.full(y.shape, np.nan), 0
    for part in cells.chunks(rows, columns, triple):
        found[part], n_cells = cells.predict(*part, triple, 1e-8)[0], n_cells + part[0].size
    assert n_cells == rows.size
    np.testing.assert_allclose(found, expected, atol=1e-6)


BLOCK_GRID = DwcpOptions(
    lambda_time=(0.0, 0.5),
    lambda_unit=(0.0, 1.0),
    lambda_nn=(math.inf, 1.0),
    tuning="block",
    unit_placebos=3,
    time_placebos=3,
    cv_tolerance=1e-7,
)


@pytest.mark.parametrize("treatment", ["block", "staggered"])
def test_block_tuning_scores_the_mean_error_on_placebos(treatment: str) -> None:
    starts = (9, 9) if treatment == "block" else (9, 10)
    panel = panels.staggered_panel(9, 12, starts, seed=14)
    fit = dwcp(panel, BLOCK_GRID, seed=5)
    assert fit.tuning == "block"
    y, _, _ = standardised(panel)
    drawn = placebo_panels(y, panel.observed, panel.target_cells, 3, 3, np.random.default_rng([5, 3]))
    assert drawn is not None
    triples = [(step.lambda_time or 0.0, step.lambda_unit or 0.0, step.lambda_nn or 0.0) for step in fit.path]
    assert len(set(triples)) == 5
    squares = np.zeros((len(triples), drawn.panels.n))
    for k in range(drawn.panels.n):
        one = drawn.panels.take(np.array([k]))
        untreated = replace(panel, outcome=y, observed=one.cells[0] & ~panel.treated, treated=one.targets[0])
        for row, triple in enumerate(triples):
            errors = []
            for i, t in np.argwhere(one.targets[0]):
                weights = formula_weights(untreated, i, t, rescaled(untreated, Penalties(*triple)))
                if math.isinf(triple[2]):
                    prediction = two_way_fit(y, weights)
                else:
                    prediction = oracle(y, weights, triple[2], 400).prediction
                errors.append(y[i, t] - prediction[i, t])
            squares[row, k] = (np.mean(errors) * drawn.inflation[k]) ** 2
    score = squares.mean(axis=1) / np.median(squares.mean(axis=1))
    np.testing.assert_allclose([step.criterion for step in fit.path], score, rtol=2e-3)
    chosen = fit.penalties
    assert fit.criterion == pytest.approx(min(step.criterion for step in fit.path), rel=1e-8)
    assert score[triples.index((chosen.lambda_time, chosen.lambda_unit, chosen.lambda_nn))] <= 1.004 * score.min()


def test_block_tuning_never_reads_treated_cells() -> None:
    panel = panels.staggered_panel(10, 12, (9, 10), seed=15)
    fit = dwcp(panel, BLOCK_GRID, seed=1)
    changed = replace(panel, outcome=np.where(panel.treated, 1e6, panel.outcome))
    again = dwcp(changed, BLOCK_GRID, seed=1)
    assert again.path == fit.path
    assert again.penalties == fit.penalties
    np.testing.assert_array_equal(again.counterfactual, fit.counterfactual)
    assert dwcp(panel, BLOCK_GRID, seed=2).path != fit.path


@pytest.mark.parametrize(("units", "times"), [(1, 0), (0, 1), (2, 2)])
def test_block_tuning_with_few_placebos_sees_all_of_them_at_once(units: int, times: int) -> None:
    panel = panels.block_panel(10, 12, 1, 3, seed=16)
    fit = dwcp(panel, replace(BLOCK_GRID, unit_placebos=units, time_placebos=times))
    assert fit.tuning == "block"
    assert len(fit.path) == 5
    assert fit.criterion == pytest.approx(min(step.criterion for step in fit.path), rel=1e-8)


def test_block_tuning_without_placebos_leaves_the_panel_unweighted() -> None:
    # One control cannot stand in for the treated unit, and three periods hold no earlier window.
    panel = panels.panel_of(panels.untreated_outcomes(2, 5, seed=17), panels.treated_from(2, 5, [3]))
    fit = dwcp(panel, replace(BLOCK_GRID, lambda_unit=(0.5, 1.0)))
    assert fit.tuning == "none"
    assert fit.penalties == Penalties(0.0, 0.5, math.inf)
    assert fit.criterion is None
    np.testing.assert_allclose(
        fit.counterfactual[panel.target_cells], did(panel).counterfactual[panel.target_cells], atol=1e-9
    )


def test_block_tuning_takes_covariates() -> None:
    panel = with_covariates(panels.block_panel(10, 12, 2, 3, seed=18))
    fit = dwcp(panel, BLOCK_GRID)
    assert fit.tuning == "block"
    effects = (panel.outcome - fit.counterfactual)[panel.target_cells]
    plain = (panel.outcome - dwcp(replace(panel, covariates=None), BLOCK_GRID).counterfactual)[panel.target_cells]
    # Covariates are 6 higher where treated, which is worth 3 - 6.
    assert abs(effects.mean()) < 1.0 < abs(plain.mean())
    assert fit.constancy is None


@pytest.mark.parametrize("penalties", [(0.0, 0.0), (0.1, 0.5), (0.5, 2.0)])
def test_at_its_floor_the_penalty_still_has_a_certified_solution(penalties: tuple[float, float]) -> None:
    # 0.2 to 1.4 CPU seconds each.
    panel = panels.prop99()
    y, _, _ = standardised(panel)
    rows, columns = np.nonzero(panel.target_cells)
    predicted, rank, converged = SingleCells(y, panel.control_cells).predict(
        rows, columns, (*penalties, LAMBDA_NN_FLOOR), 1e-6
    )
    assert rows.size == 12
    assert converged
    assert rank > 20
    assert (np.abs(predicted) < 4.0).all()


@pytest.mark.parametrize("gap", [6, 25])
def test_what_rounding_spoils_is_not_called_converged(gap: int) -> None:
    # All controls miss the periods before treatment, so the treated units hang on the others by exp(-2 gap).
    n_periods = gap + 20
    outcome = panels.untreated_outcomes(10, n_periods, seed=4)
    treated = np.zeros(outcome.shape, dtype=bool)
    treated[:4, -8:] = True
    outcome[4:, -8 - gap : -8] = np.nan
    panel = panels.panel_of(outcome, treated)
    penalties = Penalties(2.0, 0.5, math.inf)
    fit = dwcp(panel, penalties=penalties)
    assert fit.converged == (gap == 6)
    i, t = 0, n_periods - 3
    if gap == 6:
        exact = exact_two_way(panel.outcome, formula_weights(panel, i, t, penalties), i, t)
        assert fit.counterfactual[i, t] == pytest.approx(exact, abs=1e-7)
