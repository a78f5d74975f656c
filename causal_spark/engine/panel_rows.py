"""Rows of the panel job's result tables, made of fits and variances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from causal_spark.engine.work import Row
from causal_spark.panel.event_study import EventStudy
from causal_spark.panel.inference import ErrorBar, VarianceEstimate, interval
from causal_spark.panel.labels import label
from causal_spark.panel.registry import VARIANCES
from causal_spark.panel.summary import EffectSummary, effect_cells
from causal_spark.panel.types import Bools, Fit, Floats, Panel

#: Weights at or below this are left out of ``panel_weights``.
WEIGHT_FLOOR = 1e-6


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _nullable(values: Floats) -> pa.Array:
    return pa.array(np.where(np.isfinite(values), values, np.nan), from_pandas=True)


def _penalty(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def variance_row(
    estimator: str, variance: str, estimate: float, found: VarianceEstimate | None, confidence_level: float
) -> Row:
    """Row of ``panel_variances``; found: None where the variance could not be estimated."""
    row: dict[str, Any] = {
        "estimator": estimator,
        "variance_estimator": variance,
        "conditioning": VARIANCES[variance].conditioning,
        "conf_level": confidence_level,
        "n_replicates": 0,
    }
    if found is None:
        return row
    around = interval(estimate, found.att.std_error, found.att.df, confidence_level)
    return row | {
        "std_error": _number(found.att.std_error),
        "df": _number(found.att.df),
        "statistic": _number(around.statistic),
        "p_value": _number(around.p_value),
        "conf_low": _number(around.conf_low),
        "conf_high": _number(around.conf_high),
        "n_replicates": found.n_replicates,
        "permutation_p_value": _number(found.permutation_p_value),
    }


def event_rows(estimator: str, events: EventStudy, bars: Mapping[int, ErrorBar], confidence_level: float) -> list[Row]:
    """Rows of ``panel_event_study``. bars: by event time, where there is one."""
    rows: list[Row] = []
    for event_time, estimate, n_cells in zip(
        events.event_time.tolist(), events.estimate.tolist(), events.n_cells.tolist(), strict=True
    ):
        row: dict[str, Any] = {
            "estimator": estimator,
            "event_time": event_time,
            "estimate": estimate,
            "n_cells": n_cells,
        }
        bar = bars.get(event_time)
        if bar is not None and bar.is_usable:
            around = interval(estimate, bar.std_error, bar.df, confidence_level)
            row |= {
                "std_error": _number(bar.std_error),
                "conf_low": _number(around.conf_low),
                "conf_high": _number(around.conf_high),
            }
        rows.append(row)
    return rows


def cell_table(estimator: str, panel: Panel, fit: Fit, wanted: Bools, std_error: Floats | None) -> pa.Table:
    """Rows of ``panel_cells``, by unit label and time.

    wanted, std_error: (n_units, n_periods).
    """
    order = _label_order(panel)
    place, t = np.nonzero(wanted[order])
    i = order[place]
    columns: dict[str, Any] = {
        "estimator": pa.repeat(estimator, len(i)),
        "unit": pa.array([label(unit) for unit in panel.units], pa.string()).take(pa.array(i)),
        "time": pa.array([label(period) for period in panel.periods], pa.string()).take(pa.array(t)),
        "treated": pa.array(panel.treated[i, t]),
        "outcome": _nullable(panel.outcome[i, t]),
        "counterfactual": _nullable(fit.counterfactual[i, t]),
        "effect": _nullable(effect_cells(panel, fit)[i, t]),
        "std_error": _nullable(np.full(len(i), np.nan) if std_error is None else std_error[i, t]),
    }
    return pa.table(columns)


def effect_row(estimator: str, summary: EffectSummary, fit: Fit, seconds: float) -> Row:
    """Row of ``panel_effects``. seconds: worker seconds the estimate took."""
    penalties = fit.penalties
    return {
        "estimator": estimator,
        "estimand": "att",
        "estimate": summary.estimate,
        "n_units": summary.n_units,
        "n_periods": summary.n_periods,
        "n_treated_units": summary.n_treated_units,
        "n_treated_cells": summary.n_treated_cells,
        "n_cells_not_identified": summary.n_cells_not_identified,
        "n_control_units": summary.n_control_units,
        "n_pre_periods": summary.n_pre_periods,
        "pre_rmse": _number(summary.pre_rmse),
        "tuning": fit.tuning,
        "criterion": _number(fit.criterion),
        "lambda_time": _penalty(penalties.lambda_time),
        "lambda_unit": _penalty(penalties.lambda_unit),
        "lambda_nn": _penalty(penalties.lambda_nn),
        "fitted_rank": fit.rank,
        "converged": fit.converged,
        "seconds": seconds,
        "constancy_statistic": _number(None if fit.constancy is None else fit.constancy.statistic),
        "constancy_p_value": _number(None if fit.constancy is None else fit.constancy.p_value),
        "constancy_weight": _number(None if fit.constancy is None else fit.constancy.weight),
    }


def _label_order(panel: Panel) -> np.ndarray[Any, np.dtype[np.intp]]:
    """(n_units,) positions of units by label, the order people read them in."""
    return np.argsort(panel.units, kind="stable")


def weight_rows(estimator: str, panel: Panel, fit: Fit) -> list[Row]:
    """Rows of ``panel_weights``, by label within each kind."""
    place = np.argsort(_label_order(panel), kind="stable")
    rows: list[Row] = []
    for weights in fit.weights:
        of_time = weights.kind.startswith("time")
        labels = panel.periods if of_time else panel.units
        order = np.argsort(weights.positions if of_time else place[weights.positions], kind="stable")
        rows += [
            {"estimator": estimator, "kind": weights.kind, "label": label(labels[position]), "weight": value}
            for position, value in zip(weights.positions[order].tolist(), weights.values[order].tolist(), strict=True)
            if value > WEIGHT_FLOOR
        ]
    return rows


def path_rows(estimator: str, fit: Fit) -> list[Row]:
    """Rows of ``tuning_path``."""
    return [
        {
            "estimator": estimator,
            "step": step,
            "lambda_time": _penalty(tried.lambda_time),
            "lambda_unit": _penalty(tried.lambda_unit),
            "lambda_nn": _penalty(tried.lambda_nn),
            "criterion": _number(tried.criterion),
        }
        for step, tried in enumerate(fit.path)
    ]
