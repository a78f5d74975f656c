import re
from pathlib import Path

import pytest

from causal_spark.errors import InputError
from causal_spark.lake.locations import text_literal
from causal_spark.lake.schemas import CONTRACT_VERSION, TABLES, TYPES, group_columns

DOCS = Path(__file__).parents[2] / "docs" / "tables.md"

#: The contract as agreed, keys excluded: a change here is a change readers notice.
CONTRACT = {
    "runs": "run_key job status started_at finished_at config_json input input_version package_version "
    "contract_version n_groups n_succeeded n_declined n_failed rows_read rows_written seconds_by_estimator seed series",
    "failures": "stage estimator job kind error_class message hint n_rows",
    "panel_effects": "estimator estimand estimate n_units n_periods n_treated_units n_treated_cells "
    "n_cells_not_identified n_control_units n_pre_periods pre_rmse tuning criterion lambda_time lambda_unit "
    "lambda_nn fitted_rank converged seconds constancy_statistic constancy_p_value constancy_weight",
    "panel_variances": "estimator variance_estimator conditioning std_error df statistic p_value conf_level conf_low "
    "conf_high n_replicates permutation_p_value",
    "panel_event_study": "estimator event_time estimate std_error conf_low conf_high n_cells",
    "panel_cells": "estimator unit time treated outcome counterfactual effect std_error",
    "panel_weights": "estimator kind label weight",
    "tuning_path": "estimator step lambda_time lambda_unit lambda_nn criterion",
    "estimator_study": "design effect_shape estimator n_replicates rmse rmse_mc_error bias bias_mc_error "
    "normalised_rmse normalised_rmse_mc_error place best_or_tied",
    "variance_study": "design estimator variance_estimator noise_quartile n_replicates conf_level coverage "
    "coverage_mc_error power power_effect mean_width",
    "recommendations": "estimator variance_estimator reason",
    "response_curves": "estimator dose estimate slope std_error slope_std_error conf_low conf_high conf_level "
    "n_replicates expected_bias",
    "balance": "estimator covariate moment correlation_before correlation_after effective_sample_size",
    "individual_effects": "estimator row_id treatment outcome_estimate effect std_error conf_low conf_high conf_level "
    "propensity in_support",
    "arm_effects": "estimator treatment reference estimate std_error conf_low conf_high conf_level p_value n_rows "
    "difference_in_means",
    "policies": "estimator row_id recommended_treatment expected_gain runner_up abstained",
    "policy_values": "estimator policy value std_error conf_low conf_high conf_level gain gain_std_error gain_conf_low "
    "gain_conf_high n_rows",
    "overlap": "treatment covariate smd_before smd_after propensity_min propensity_max effective_sample_size n_rows "
    "share_in_support",
    "models": "estimator schema_json tensors",
    "graph_diagnostics": "node parents mechanism n_rows fit parent_dependence parent_p_value other_node "
    "other_dependence other_p_value refuted",
    "root_causes": "event_id node outlier_score contribution std_error conf_low conf_high conf_level place residual_z "
    "evidence evidence_place score_floored",
    "distribution_changes": "period functional node contribution std_error conf_low conf_high conf_level place "
    "attributed_change observed_change n_rows",
    "intrinsic_contributions": "node contribution std_error conf_low conf_high conf_level variance_share place",
}


def test_tables_have_the_columns_of_the_contract_in_order() -> None:
    assert {name: " ".join(c.name for c in table.columns) for name, table in TABLES.items()} == CONTRACT


def test_names_and_types_are_those_every_reader_understands() -> None:
    for table in TABLES.values():
        for column in table.all_columns:
            assert column.type in TYPES
            assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name)
            assert column.comment.endswith(".")


def test_every_number_is_kept_from_being_nan() -> None:
    for table in TABLES.values():
        for column in table.all_columns:
            if column.type == "DOUBLE":
                assert column.check is not None, f"{table.name}.{column.name}"


def test_keys_come_first() -> None:
    groups = group_columns((("region", "STRING"),))
    names = {name: [c.name for c in table.with_groups(groups).all_columns[:3]] for name, table in TABLES.items()}
    assert names["panel_effects"] == ["run_id", "group_id", "region"]
    assert names["failures"] == ["run_id", "group_id", "stage"]
    assert names["runs"] == ["run_id", "run_key", "job"]


@pytest.mark.parametrize("name", ["estimate", "run_id", "unit", "Region", "1st", "a b", "a`b", "é", ""])
def test_group_columns_that_collide_or_are_hard_to_read_are_refused_with_a_remedy(name: str) -> None:
    with pytest.raises(InputError, match=r"columns\.rename"):
        group_columns(((name, "STRING"),))


def test_text_literals_cannot_end_early() -> None:
    assert text_literal("it's \\ done") == "'it\\'s \\\\ done'"


def documented() -> dict[str, list[tuple[str, str, str]]]:
    tables: dict[str, list[tuple[str, str, str]]] = {}
    for section in DOCS.read_text(encoding="utf-8").partition("\n## The tables")[2].split("\n### ")[1:]:
        name = section.split("\n", 1)[0].strip("` ")
        found = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", section, re.MULTILINE)
        tables[name] = [(column, type_, comment) for column, type_, comment in found]
    return tables


def test_the_document_lists_every_table_and_column_as_the_code_does() -> None:
    wanted = {name: [(c.name, c.type, c.comment) for c in table.columns] for name, table in TABLES.items()}
    assert documented() == wanted


def test_the_document_is_that_of_the_current_contract() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert re.findall(r"contract version (\d+)", text) == [str(CONTRACT_VERSION)]
    versions = text.partition("## Versions of the contract")[2].partition("## The tables")[0]
    assert re.findall(r"^\| (\d+) \|", versions, re.MULTILINE)[0] == str(CONTRACT_VERSION)
