import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from causal_spark.multi_treatment.forests import forest_of

KIND = {"regressor": HistGradientBoostingRegressor, "binary": HistGradientBoostingClassifier}


def data(n_rows=500, seed=0):
    rng = np.random.default_rng(seed)
    # Values that repeat and lie on thresholds, too.
    x = np.round(rng.normal(size=(n_rows, 5)), 1)
    return x, x[:, 0] * (x[:, 1] > 0) + np.sin(3 * x[:, 2]) + 0.1 * rng.normal(size=n_rows)


@pytest.mark.parametrize("leaves", [2, 16])
@pytest.mark.parametrize("kind", ["regressor", "binary", "several"])
def test_a_forest_says_what_scikit_learn_says(kind, leaves):
    x, y = data()
    target = {"regressor": y, "binary": (y > 0.5).astype(int), "several": np.digitize(y, [-0.5, 0.5, 1.0])}[kind]
    model = KIND.get(kind, HistGradientBoostingClassifier)(max_iter=30, max_leaf_nodes=leaves, early_stopping=False)
    model.fit(x, target)
    fresh = np.concatenate([data(seed=1)[0], np.full((1, 5), 1e9), np.full((1, 5), -1e9)])
    found = forest_of(model)
    if kind == "regressor":
        np.testing.assert_allclose(found.predict(fresh), model.predict(fresh), rtol=1e-12, atol=1e-12)
    else:
        wanted = model.predict_proba(fresh)
        wanted = wanted if kind == "several" else wanted[:, 1]
        np.testing.assert_allclose(found.predict(fresh), wanted, rtol=1e-12, atol=1e-12)
    some = forest_of(model, 7).predict(fresh)
    staged = list(model.staged_predict(fresh) if kind == "regressor" else model.staged_predict_proba(fresh))[6]
    np.testing.assert_allclose(some, staged[:, 1] if kind == "binary" else staged, rtol=1e-12, atol=1e-12)
    assert found.predict(fresh[:0]).shape[0] == 0


def test_a_forest_of_stumps_without_a_split_is_its_mean():
    x, y = data(50)
    model = HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=40).fit(x, y)
    np.testing.assert_allclose(forest_of(model).predict(x), model.predict(x))
