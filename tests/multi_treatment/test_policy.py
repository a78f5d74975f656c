import numpy as np
import pytest
from scipy import stats

from causal_spark.multi_treatment.arm_effects import arm_effects, doubly_robust_scores
from causal_spark.multi_treatment.overlap import in_support, overlap_of
from causal_spark.multi_treatment.policy import choose_arms, policy_values
from causal_spark.multi_treatment.types import ArmSample
from tests.multi_treatment.samples import confounded, true_chances


def test_scores_are_predictions_and_in_the_arm_received_weighted_residuals():
    sample = ArmSample(np.zeros((3, 1)), np.array([0, 1, 1]), np.array([1.0, 5.0, 2.0]), 2, False)
    predicted, chances = np.array([[2.0, 3], [1, 4], [0, 0]]), np.array([[0.5, 0.5], [0.2, 0.8], [0.999, 0.001]])
    scores = doubly_robust_scores(sample, predicted, chances, 0.1)
    np.testing.assert_allclose(scores, [[2 - 1 / 0.5, 3], [1, 4 + 1 / 0.8], [0, 2 / 0.1]])


def test_effects_of_all_pairs_are_means_of_differences_of_scores():
    scores = np.array([0, 0.5, 3]) + np.random.default_rng(0).normal(size=(50, 3))
    found = arm_effects(scores)
    for k in range(3):
        for j in range(3):
            difference = scores[:, k] - scores[:, j]
            assert found.estimate[k, j] == pytest.approx(difference.mean())
            assert found.std_error[k, j] == pytest.approx(difference.std(ddof=1) / np.sqrt(50), abs=1e-12)
            if k != j:
                wanted = 2 * stats.norm.sf(abs(found.estimate[k, j] / found.std_error[k, j]))
                assert found.p_value[k, j] == pytest.approx(wanted)
    np.testing.assert_array_equal(np.diag(found.p_value), np.ones(3))
    np.testing.assert_allclose(found.mean_errors, scores.std(axis=0, ddof=1) / np.sqrt(50))


def test_intervals_of_mean_effects_cover_under_confounding():
    covered = []
    for seed in range(200):
        sample, means = confounded(300, seed=seed)
        # Half right predictions, right chances: neither part alone would do.
        scores = doubly_robust_scores(sample, means / 2, true_chances(sample), 1e-3)
        found = arm_effects(scores)
        truth = 2.0  # of arm 2 against the control arm, over all rows there could be
        covered.append(abs(found.estimate[2, 0] - truth) <= 1.96 * found.std_error[2, 0])
    assert np.mean(covered) == pytest.approx(0.95, abs=0.045)


def test_differences_before_and_after_weighting():
    sample, _ = confounded(3000)
    found = overlap_of(sample, true_chances(sample), 1e-3)
    spread = sample.covariates.std(axis=0)
    for k in range(3):
        rows = sample.arm == k
        wanted = (sample.covariates[rows].mean(axis=0) - sample.covariates.mean(axis=0)) / spread
        np.testing.assert_allclose(found.smd_before[k], wanted)
        assert abs(found.smd_after[k, 0]) < 0.25 * abs(found.smd_before[k, 0]) or abs(found.smd_before[k, 0]) < 0.1
        assert 0.2 * rows.sum() < found.effective_sample_size[k] < rows.sum()
    np.testing.assert_allclose(found.lowest, true_chances(sample).min(axis=0))
    np.testing.assert_allclose(found.highest, true_chances(sample).max(axis=0))


def test_a_covariate_that_does_not_vary_has_no_difference_and_equal_chances_leave_all_rows():
    sample = ArmSample(np.ones((6, 1)), np.array([0, 0, 1, 1, 1, 1]), np.zeros(6), 2, False)
    found = overlap_of(sample, np.full((6, 2), 0.5), 0.01)
    assert np.isnan(found.smd_before).all()
    np.testing.assert_allclose(found.effective_sample_size, [2, 4])
    np.testing.assert_array_equal(in_support(np.array([[0.02, 0.98]]), 0.05), [[False, True]])


EFFECTS = np.array([[0, 1.0, 3], [0, 2, 1.5], [0, -1, -2], [0, 0.4, 0.3]])


def test_the_largest_gain_net_of_costs_is_recommended():
    free = choose_arms(EFFECTS, np.zeros(3))
    assert free.recommended.tolist() == [2, 1, 0, 1]
    assert free.runner_up.tolist() == [1, 2, 1, 2]
    assert free.expected_gain.tolist() == [3, 2, 0, 0.4]
    assert not free.abstained.any()
    costly = choose_arms(EFFECTS, np.array([0.5, 0.6, 3]))
    assert costly.recommended.tolist() == [1, 1, 0, 1]
    np.testing.assert_allclose(costly.expected_gain, [0.9, 1.9, 0, 0.3])


def test_costs_may_differ_by_row_and_arms_may_be_ruled_out():
    costs = np.array([[0, 0, 5.0], [0, 5, 0], [0, 0, 0], [0, 0, 0]])
    assert choose_arms(EFFECTS, costs).recommended.tolist() == [1, 2, 0, 1]
    allowed = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 0]], dtype=bool)
    assert choose_arms(EFFECTS, np.zeros(3), allowed=allowed).recommended.tolist() == [1, 2, 0, 0]


def test_where_an_interval_covers_zero_the_control_arm_is_recommended_and_the_arm_told():
    found = choose_arms(EFFECTS, np.zeros(3), np.full((4, 3), 1.2), 1.96)
    assert found.recommended.tolist() == [2, 0, 0, 0]
    assert found.abstained.tolist() == [False, True, False, True]
    assert found.runner_up.tolist() == [1, 1, 1, 1]
    assert found.expected_gain.tolist() == [3, 0, 0, 0]


def test_values_of_policies_stand_beside_those_of_treating_all_and_none():
    rng = np.random.default_rng(1)
    scores = np.array([0, 1, 0.5]) + rng.normal(size=(400, 3))
    recommended, costs = rng.integers(3, size=400), np.array([0, 0.2, 0.1])
    found = policy_values(scores, recommended, costs)
    assert set(found) == {"policy", "none", "all:1", "all:2"}
    net = scores - costs
    chosen = net[np.arange(400), recommended]
    assert found["policy"].value == pytest.approx(chosen.mean())
    assert found["policy"].gain_std_error == pytest.approx((chosen - net[:, 0]).std(ddof=1) / 20)
    assert found["none"].gain == found["none"].gain_std_error == 0
    assert found["all:1"].gain == pytest.approx((net[:, 1] - net[:, 0]).mean())


def test_a_policy_by_true_effects_is_worth_what_they_say():
    sample, means = confounded(4000)
    scores = doubly_robust_scores(sample, means, true_chances(sample), 0.01)
    recommended = choose_arms(means - means[:, :1], np.array([0.0, 1.5, 2.0])).recommended
    found = policy_values(scores, recommended, np.array([0.0, 1.5, 2.0]))
    net = means - np.array([0.0, 1.5, 2.0])
    assert found["policy"].gain == pytest.approx(
        np.mean(net.max(axis=1) - net[:, 0]), abs=3 * found["policy"].gain_std_error
    )
    assert found["policy"].value > max(found[name].value for name in ("none", "all:1", "all:2"))
