import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from causal_spark.engine import pack as packing
from causal_spark.engine.columns import PanelRoles, panel_columns, select_pandas
from causal_spark.engine.pack import pack, unpack
from causal_spark.engine.panels import PanelWork
from tests.frames import ROLES, grouped, long_panel


def work_for(frame: pd.DataFrame, groups: list[str]) -> PanelWork:
    columns = panel_columns(frame, PanelRoles(groups=groups, **ROLES))
    return PanelWork(columns=columns, estimators=(), variances=(), confidence_level=0.95, seed=0)


FRAME = grouped(north=long_panel(6, 8, seed=1), south=long_panel(5, 7, seed=2), west=long_panel(4, 9, seed=3))


def unpacked(batch_rows: int) -> dict[str, pd.DataFrame]:
    work = work_for(FRAME, ["region"])
    batches = select_pandas(FRAME, work.columns).to_batches(max_chunksize=batch_rows)
    return {group.group_id: group.rows.to_pandas() for group in unpack(pack(batches, work), work)}


@pytest.mark.parametrize("batch_rows", [1, 7, 48, 1000])
@pytest.mark.parametrize("chunk_rows", [3, 1000])
def test_groups_come_back_whole_however_rows_arrive(
    batch_rows: int, chunk_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "CHUNK_ROWS", chunk_rows)
    found = unpacked(batch_rows)
    assert len(found) == 3
    south = found['{"region":{"string":"south"}}']
    wanted = FRAME[FRAME["region"] == "south"].sort_values(["unit", "year"])
    np.testing.assert_array_equal(south["_outcome"], wanted["y"])
    np.testing.assert_array_equal(south["_unit"], wanted["unit"])


@pytest.mark.parametrize("chunk_rows", [5, 100_000])
def test_packed_rows_do_not_depend_on_batches(chunk_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "CHUNK_ROWS", chunk_rows)
    work = work_for(FRAME, ["region"])

    def packed(batch_rows: int) -> list[dict[str, object]]:
        table = select_pandas(FRAME, work.columns)
        return pa.Table.from_batches(pack(table.to_batches(max_chunksize=batch_rows), work)).to_pylist()

    assert packed(1) == packed(11) == packed(10_000)


def test_sizes_are_counted_per_group() -> None:
    work = work_for(FRAME, ["region"])
    table = pa.Table.from_batches(pack(select_pandas(FRAME, work.columns).to_batches(), work))
    row = table.to_pylist()[0]
    assert [row[name] for name in ("_n_rows", "_n_units", "_n_treated_units", "_n_treated_cells")] == [48, 6, 1, 3]


def test_the_digest_sees_one_changed_value_and_nothing_else() -> None:
    work = work_for(FRAME, ["region"])

    def digests(frame: pd.DataFrame) -> list[str]:
        table = pa.Table.from_batches(pack(select_pandas(frame, work.columns).to_batches(), work))
        return table["_digest"].to_pylist()

    changed = FRAME.copy()
    changed.loc[FRAME["region"].eq("south").idxmax(), "y"] += 1e-12
    assert digests(FRAME.sample(frac=1, random_state=0)) == digests(FRAME)
    assert [a == b for a, b in zip(digests(changed), digests(FRAME), strict=True)] == [True, False, True]


@pytest.mark.parametrize("column", ["unit", "year"])
def test_dates_can_be_units_and_times(column: str) -> None:
    days = pd.to_datetime(FRAME["year"].astype(str) + "-01-01") + pd.to_timedelta(
        FRAME["unit"].str[1:].astype(int), "D"
    )
    frame = FRAME.assign(**{column: days.dt.date})
    work = work_for(frame, ["region"])
    groups = list(unpack(pack(select_pandas(frame, work.columns).to_batches(), work), work))
    assert groups[0].rows[f"_{'time' if column == 'year' else column}"].type == pa.date32()
    assert len(groups) == 3


def test_null_keys_are_a_group_of_their_own() -> None:
    frame = FRAME.assign(region=FRAME["region"].where(FRAME["region"] != "west", None))
    work = work_for(frame, ["region"])
    groups = list(unpack(pack(select_pandas(frame, work.columns).to_batches(), work), work))
    assert sorted(group.group_id for group in groups)[2] == '{"region":{"string":null}}'
    assert len(groups) == 3
