"""Attribution of changes: mean and variance, quantiles and divergence, and intrinsic contributions."""

import numpy as np
import pytest
from scipy import stats

from causal_spark.root_cause import intrinsic
from causal_spark.root_cause.coalitions import DrawOptions, all_coalitions, sampled_coalitions
from causal_spark.root_cause.intrinsic import intrinsic_contributions
from causal_spark.root_cause.model import GraphModel, fit_model
from causal_spark.root_cause.multiply_robust import robust_changes
from causal_spark.root_cause.plug_in import Divergence, Quantile, plug_in_changes
from causal_spark.root_cause.types import Floats, NodeTable
from tests.root_cause.systems import DIAMOND, continuous, diamond, diamond_noise, diamond_values

PLAYERS = all_coalitions(5)
PLUG_IN = DrawOptions(3000, 24)


def changed(n_rows: int, seed: int, *, bent: bool = False) -> NodeTable:
    """The mean of a moved by one half, and the spread of b grew by one half."""
    noise = diamond_noise(n_rows, seed)
    noise[:, 0] += 0.5
    noise[:, 1] *= 1.5
    return continuous(diamond_values(noise, bent=bent))


def truth() -> Floats:
    """(2, 5) of mean and variance, from the reduced form of the straight system."""
    effect = 0.8 * 2 * 1.5 - 0.5 * 0.7
    return np.array([[0.5 * effect, 0, 0, 0, 0], [0, 1.25 * 1.5**2, 0, 0, 0]])


def test_means_and_variances_are_attributed_to_what_moved() -> None:
    found = [robust_changes(DIAMOND, diamond(1500, s), changed(1500, 100 + s), PLAYERS, s) for s in range(24)]
    estimates = np.array([one.contributions for one in found])
    errors = np.array([one.std_errors for one in found])
    spread = estimates.std(axis=0, ddof=1)
    assert (np.abs(estimates.mean(axis=0) - truth()) < 4 * spread / np.sqrt(24) + 0.03).all()
    # Standard errors are those of the spread, and intervals hold the truth.
    assert 0.8 < np.sqrt((errors**2).mean(axis=0) / spread**2).mean() < 1.3
    assert (np.abs(estimates - truth()) < 1.96 * errors).mean() > 0.9


def test_contributions_sum_to_the_observed_change() -> None:
    old, new = diamond(1500, 1), changed(1500, 2)
    found = robust_changes(DIAMOND, old, new, PLAYERS, 3)
    before, after = old.values[:, -1], new.values[:, -1]
    assert found.contributions[0].sum() == pytest.approx(after.mean() - before.mean(), abs=1e-9)
    assert found.contributions[1].sum() == pytest.approx(after.var() - before.var(), rel=0.01)


def test_one_wrong_nuisance_is_made_up_for_by_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from causal_spark.root_cause import multiply_robust

    def mean_error() -> float:
        found = [robust_changes(DIAMOND, diamond(2000, s), changed(2000, 50 + s), PLAYERS, s) for s in range(12)]
        return float(np.abs(np.mean([one.contributions[0] for one in found], axis=0) - truth()[0]).max())

    right = mean_error()
    with monkeypatch.context() as patch:
        # Regressions that say nothing: the weights must do it all.
        patch.setattr(multiply_robust, "least_squares", lambda columns, responses: 0 * columns.T @ responses)
        by_weights = mean_error()
    with monkeypatch.context() as patch:
        # No weights: the regressions must.
        patch.setattr(multiply_robust, "log_odds", lambda columns, marks: np.zeros(columns.shape[1]))
        by_regressions = mean_error()
    with monkeypatch.context() as patch:
        patch.setattr(multiply_robust, "least_squares", lambda columns, responses: 0 * columns.T @ responses)
        patch.setattr(multiply_robust, "log_odds", lambda columns, marks: np.zeros(columns.shape[1]))
        neither = mean_error()
    assert right < 0.06
    assert by_regressions < 0.06
    assert by_weights < 0.12
    assert neither > 0.4


def test_sampled_orders_are_near_all_coalitions() -> None:
    old, new = diamond(1500, 4), changed(1500, 5)
    exact = robust_changes(DIAMOND, old, new, PLAYERS, 6)
    near = robust_changes(DIAMOND, old, new, sampled_coalitions(5, 60, 7), 6)
    np.testing.assert_allclose(near.contributions, exact.contributions, atol=0.1)


def test_discrete_nodes_take_part() -> None:
    def rows(n_rows: int, seed: int, chance: float) -> NodeTable:
        generator = np.random.default_rng(seed)
        cause = (generator.random(n_rows) < chance).astype(float)
        return NodeTable(np.stack([cause, 2 * cause + generator.normal(size=n_rows)], axis=1), (2, 0))

    graph = DIAMOND.within((0, 1))
    found = robust_changes(graph, rows(3000, 8, 0.2), rows(3000, 9, 0.6), all_coalitions(2), 10)
    np.testing.assert_allclose(found.contributions[0], [0.8, 0.0], atol=4 * found.std_errors[0].max())


def models(seed: int, *, bent: bool = False) -> tuple[GraphModel, GraphModel]:
    kind = "additive" if bent else "linear"
    tables = diamond(5000, seed, bent=bent), changed(5000, seed + 1, bent=bent)
    before, after = (fit_model(DIAMOND, table, kind) for table in tables)
    return before, after


@pytest.mark.parametrize("bent", [False, True])
def test_quantiles_and_divergence_sum_to_their_change(bent: bool) -> None:
    before, after = models(11, bent=bent)
    functionals = [Quantile(0.5), Quantile(0.95), Divergence()]
    found = plug_in_changes(before, after, functionals, PLUG_IN, 12)
    old, new = diamond(50_000, 13, bent=bent).values[:, -1], changed(50_000, 14, bent=bent).values[:, -1]
    for place, level in enumerate((0.5, 0.95)):
        change = np.quantile(new, level) - np.quantile(old, level)
        assert found[place].sum() == pytest.approx(change, abs=0.25)
    # The middle moved with a, the tail with the spread of b too, and with nothing else.
    assert found[0].argmax() == 0
    assert found[1, 1] > 2 * np.abs(found[1, 2:]).max()
    assert found[2].sum() > 0
    assert set(np.argsort(-found[2])[:2]) == {0, 1}


def test_nothing_changes_where_the_models_are_the_same() -> None:
    before, _ = models(15)
    found = plug_in_changes(before, before, [Quantile(0.3), Divergence()], PLUG_IN, 16)
    np.testing.assert_allclose(found, 0.0, atol=1e-12)


def test_the_divergence_of_two_normals_is_known() -> None:
    n_draws = 20_000
    even = (np.arange(n_draws) + 0.5) / n_draws
    base = stats.norm.ppf(even)
    moved, wider = base + 0.7, 1.5 * base
    for other, expected in ((moved, 0.245), (wider, np.log(1 / 1.5) + 1.125 - 0.5)):
        found = Divergence()(np.stack([base, other]), base)
        np.testing.assert_allclose(found, [0.0, expected], atol=0.03)


def test_quantiles_of_samples_are_numpys() -> None:
    values = np.sort(np.random.default_rng(17).normal(size=(4, 101)), axis=1)
    for level in (0.01, 0.5, 0.9, 0.999):
        np.testing.assert_allclose(Quantile(level)(values, values[0]), np.quantile(values, level, axis=1))


def test_intrinsic_contributions_of_a_linear_system_are_shares_of_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fit_model(DIAMOND, diamond(50_000, 18), "linear")
    options = DrawOptions(4000, 24)
    found = intrinsic_contributions(model, options, 19)
    effects = np.array([0.8 * 2 * 1.5 - 0.35, 1.5, 0.7, 1.0, 1.0])
    expected = effects**2 * [1, 1, 2, 2, 1]
    np.testing.assert_allclose(found, expected, rtol=0.15)
    assert found.sum() == pytest.approx(diamond(50_000, 18).values[:, -1].var(), rel=0.05)
    # The general way says the same up to its draws.
    monkeypatch.setattr(GraphModel, "is_linear", False)
    sampled = intrinsic_contributions(model, options, 19)
    np.testing.assert_allclose(sampled, found, atol=0.06 * found.sum())


def test_intrinsic_contributions_sum_to_the_variance_of_the_target() -> None:
    rows = diamond(3000, 20, bent=True)
    model = fit_model(DIAMOND, rows, "additive")
    found = intrinsic_contributions(model, DrawOptions(3000, 24), 21)
    assert found.sum() == pytest.approx(rows.values[:, -1].var(), rel=0.1)
    assert found.min() > -0.02 * found.sum()
    assert intrinsic.MORE_DRAWS >= 1


def test_an_interaction_is_shared() -> None:
    # x * y of two coins: neither does anything alone, together they do everything.
    generator = np.random.default_rng(22)
    x, y = (generator.integers(2, size=4000).astype(float) for _ in range(2))
    either = (x != y).astype(float)
    table = NodeTable(np.stack([x, y, either, 3 * either + 0.1 * generator.normal(size=4000)], axis=1), (2, 2, 2, 0))
    from causal_spark.root_cause.graph import causal_graph

    graph = causal_graph([("x", "z_either"), ("y", "z_either"), ("z_either", "zz")])
    model = fit_model(graph, table, "linear")
    found = intrinsic_contributions(model, DrawOptions(3000, 24), 23)
    # A logit without products knows nothing of it: all is noise of the node itself.
    assert found[2] > 0.9 * found.sum()
