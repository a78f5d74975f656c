"""Conditional variances on many draws of panels of pure noise: how large they are, and how often intervals cover."""

import numpy as np
import pytest

from causal_spark.panel.conditional import CONDITIONING
from causal_spark.panel.inference import interval
from causal_spark.panel.summary import att
from studies.noise import NoiseDesign, draw
from tests.panel.settings import all_four, setting_of


def test_intervals_cover_in_quiet_and_noisy_draws_if_given_both():
    """One treated cell, noise a_i b_t with autocorrelation .5; the standard error of a coverage of 75 draws is .025."""
    covered, variances = [], []
    for seed in range(300):
        panel, variance = draw(NoiseDesign("cell", "both", 0.5), seed)
        setting = setting_of(panel)
        estimate = att(panel, setting.fit)
        intervals = [interval(estimate, f.att.std_error, f.att.df) for f in all_four(setting).values()]
        covered.append([one.conf_low <= 0.0 <= one.conf_high for one in intervals])
        variances.append(variance)
    covered = np.array(covered)[np.argsort(variances)]
    parts = {"all": covered, "quietest": covered[:75], "noisiest": covered[-75:]}
    found = {name: dict(zip(CONDITIONING, part.mean(axis=0), strict=True)) for name, part in parts.items()}
    assert all(0.91 <= share <= 0.985 for share in found["all"].values())
    assert found["quietest"]["marginal"] > 0.98
    assert found["noisiest"]["marginal"] < 0.87
    assert 0.89 <= found["quietest"]["unit_time"] < 0.99
    assert 0.89 <= found["noisiest"]["unit_time"] <= 1.0


@pytest.mark.parametrize("name", ["did", "sc", "difp", "sdid"])
def test_equal_noise_makes_all_four_about_the_same(name):
    """Also of estimators that fit many weights to few periods: fewer, the earlier the start."""
    found = []
    for seed in range(20):
        panel, _ = draw(NoiseDesign("unit", "none", 0.0), seed)
        setting = setting_of(panel.take_units(np.arange(25)), name)
        found.append([one.att.std_error for one in all_four(setting).values()])
    typical = dict(zip(CONDITIONING, np.median(found, axis=0), strict=True))
    for given in ("unit", "time", "unit_time"):
        assert typical[given] == pytest.approx(typical["marginal"], rel=0.1)
