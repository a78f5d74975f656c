from dataclasses import replace

import pytest

from causal_spark.multi_treatment import networks


@pytest.fixture
def brief(monkeypatch):
    """Networks are trained for some steps only."""
    monkeypatch.setattr(networks, "_TRAINING", replace(networks._TRAINING, max_steps=40))
