"""Cells of every kind of column, one at a time, in text and in typed tables."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import (
    Categorical,
    Group,
    Label,
    Numeric,
    Schema,
    TextFormat,
    Timestamp,
    UserError,
    Weight,
)
from deepfm_jax.readers.sources import read_tables, typed_table

PLAIN = TextFormat()
INTEGER = Categorical("n", dtype="integer")
FOREVER = st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30))


def typed(column, cells, text=PLAIN):
    schema = Schema((Label("y"), Categorical("other"), column), text)
    array = cells if isinstance(cells, pa.Array) else pa.array(cells)
    rows = len(array)
    table = pa.table({"y": [1] * rows, "other": ["a"] * rows, column.name: array})
    return typed_table(table, schema)


def fault(column, cells, text=PLAIN):
    with pytest.raises(UserError) as raised:
        typed(column, cells, text)
    return str(raised.value)


# 21 October 2014 was a Tuesday.
@pytest.mark.parametrize(
    ("layout", "cell"),
    [
        ("iso", "2014-10-21 23:05:59"),
        ("iso", " 2014-10-21T23:05:59.25 "),
        ("iso", "2014-10-22 01:05:59+02:00"),
        ("iso", "2014-10-21T23:05:59Z"),
        ("unix", "1413932759"),
        ("unix", "1413932759.25"),
        ("unix_ms", "1413932759250"),
        ("%y%m%d%H%M%S", "141021230559"),
        ("%d/%b/%Y:%H:%M:%S %z", "21/Oct/2014:16:05:59 -0700"),
    ],
)
def test_a_time_is_read_in_every_layout(layout, cell):
    column = Timestamp("t", layout, parts=("hour", "weekday", "weekend", "day", "month"))
    table = typed(column, [cell, None, ""])
    assert table["t"].to_pylist() == [1413932759, None, None]
    parts = {name: table[name].to_pylist() for name in table.column_names if "t_" in name}
    assert parts == {
        "t_hour": [23, None, None],
        "t_weekday": [1, None, None],
        "t_weekend": [0, None, None],
        "t_day": [21, None, None],
        "t_month": [10, None, None],
    }


def test_the_hour_of_avazu_and_a_date_alone():
    table = typed(Timestamp("hour", "%y%m%d%H"), ["14102600", "14103023"])
    assert table["hour_hour"].to_pylist() == [0, 23]
    assert table["hour_weekday"].to_pylist() == [6, 3]
    assert typed(Timestamp("t", parts=("weekend",)), ["2014-10-26"])["t_weekend"].to_pylist() == [1]


def test_integers_of_a_typed_table_are_read_by_the_same_format():
    cells = pa.array([14102600, None], pa.int32())
    assert typed(Timestamp("t", "%y%m%d%H"), cells)["t_hour"].to_pylist() == [0, None]


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ns"), pa.timestamp("ms", "America/New_York"), pa.date32(), pa.date64()]
)
def test_columns_of_times_need_no_format(kind):
    time = datetime.datetime(2014, 10, 21, 23, 5, tzinfo=datetime.UTC)
    cell = time.date() if pa.types.is_date(kind) else time
    table = typed(Timestamp("t", "%H"), pa.array([cell, None], kind))
    assert table["t_hour"].to_pylist() == [0 if pa.types.is_date(kind) else 23, None]
    assert table["t_weekday"].to_pylist() == [1, None]


@pytest.mark.parametrize(
    ("layout", "cell"),
    [
        ("iso", "2014-02-30"),
        ("iso", "2014-13-01"),
        ("iso", "2014-10-21 25:00:00"),
        ("iso", "0000-00-00 00:00:00"),
        ("iso", "yesterday"),
        ("%y%m%d%H", "14023000"),
        ("%y%m%d%H", "14102124"),
        ("%y%m%d%H", "1410212300"),
        ("unix", "1413932759250000"),
        ("unix", "now"),
        ("unix_ms", "1e300"),
    ],
)
def test_a_date_out_of_range_is_a_bad_row(layout, cell):
    good = {"iso": "2014-10-21", "unix": "1", "unix_ms": "1"}.get(layout, "14102123")
    message = fault(Timestamp("t", layout), [good, cell])
    assert f"table, row 2, column t: value {cell!r} is not a" in message


@settings(max_examples=60, deadline=None)
@given(st.lists(FOREVER, min_size=1), st.sampled_from(["iso", "%Y/%m/%d %H:%M:%S", "unix"]))
def test_times_are_those_of_the_calendar(times, layout):
    times = [time.replace(microsecond=0, tzinfo=datetime.UTC) for time in times]
    if layout == "unix":
        cells = [str(int(time.timestamp())) for time in times]
    elif layout == "iso":
        cells = [time.replace(tzinfo=None).isoformat() for time in times]
    else:
        cells = [f"{time:%m/%d %H:%M:%S}" for time in times]
        cells = [f"{time.year:04}/{cell}" for time, cell in zip(times, cells, strict=True)]
    table = typed(Timestamp("t", layout, parts=("hour", "weekday", "month", "day")), cells)
    assert table["t"].to_pylist() == [int(time.timestamp()) for time in times]
    assert table["t_hour"].to_pylist() == [time.hour for time in times]
    assert table["t_weekday"].to_pylist() == [time.weekday() for time in times]
    assert table["t_month"].to_pylist() == [time.month for time in times]
    assert table["t_day"].to_pylist() == [time.day for time in times]


def test_a_time_without_parts_may_be_absent():
    schema = Schema((Label("y"), Categorical("c"), Timestamp("t", parts=())))
    assert typed_table({"c": ["a"]}, schema).column_names == ["c"]
    schema = Schema((Label("y"), Categorical("c"), Timestamp("t")))
    with pytest.raises(UserError, match="column 't' is missing"):
        typed_table({"c": ["a"]}, schema)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["0", " 7", "", "9"], [0, 7, None, 9]),
        ([0, 7, None, 9.0], [0, 7, None, 9]),
    ],
)
def test_ids_are_integers_below_their_number(cells, expected):
    column = Categorical("c", dtype="id", size=10)
    assert typed(column, cells)["c"].to_pylist() == expected
    for bad in (-1, 10, 2**40):
        cell = str(bad) if isinstance(cells[0], str) else bad
        message = fault(column, [cells[0], cell])
        assert f"table, row 2, column c: value '{bad}' is not an id from 0 to 9" in message


@pytest.mark.parametrize("other", [[], ["x"]])
@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", None),
        ("0" * 40 + "7", 7),
        ("12.0", 12),  # So pandas writes the integers of a column that lacks some.
        ("12.5", None),
        (" +5 ", 5),
        ("++5", None),
        ("+-5", None),
        ("+", None),
        ("0x1f", None),
    ],
)
def test_what_an_integer_is_does_not_depend_on_the_cells_beside_it(cell, value, other):
    array = pa.array([cell, *other])
    for cells in (array, array.dictionary_encode()):
        values, bad = INTEGER.type_cells(cells, PLAIN)
        assert values[0].as_py() == value
        assert [row in bad for row in range(len(cells))] == [value is None, *(True for _ in other)]


@pytest.mark.parametrize("cell", ["++5", "+", "+-5", "0x1f"])
def test_a_sign_is_that_of_a_number(cell):
    assert f"value '{cell}' is not a finite number" in fault(Numeric("n"), [cell])
    assert typed(Numeric("n"), ["+.5"])["n"].to_pylist() == [0.5]


def test_large_integers_of_a_typed_table():
    large = pa.array([2**53 + 1, 2**63 - 1])
    assert typed(Categorical("n", dtype="integer"), large)["n"].to_pylist() == large.to_pylist()
    assert typed(Numeric("n"), large)["n"].to_pylist() == [2.0**53, 2.0**63]
    larger = pa.array([2**53 + 1, 2**63], pa.uint64())
    message = fault(Categorical("n", dtype="integer"), larger)
    assert "row 2, column n: value '9223372036854775808' is not an integer" in message


@pytest.mark.parametrize("other", [[], [0.5]])
@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (2.0**53, 2**53),
        (2.0**60, 2**60),
        (-(2.0**63), -(2**63)),
        (2.0**63, None),
        (float("inf"), None),
        (float("nan"), "missing"),
    ],
)
def test_a_whole_number_of_64_bits_is_an_integer_whatever_stands_beside_it(cell, value, other):
    values, bad, _ = INTEGER.type_values(pa.array([cell, *other]))
    assert values.to_pylist() == [None if value == "missing" else value, *(None for _ in other)]
    assert bad.tolist() == [value is None, *(True for _ in other)]


@pytest.mark.parametrize("other", [[], [decimal.Decimal("0.5")]])
@pytest.mark.parametrize(
    "kind", [pa.decimal128(38, 1), pa.decimal256(40, 2), pa.decimal256(76, 50)], ids=str
)
def test_an_integer_among_decimals_is_no_float(kind, other):
    cells = [2**60 + 1, -(2**63), 2**63, None]
    array = pa.array([None if n is None else decimal.Decimal(n) for n in cells] + other, kind)
    values, bad, _ = INTEGER.type_values(array)
    assert values.to_pylist() == [2**60 + 1, -(2**63), None, None, *(None for _ in other)]
    assert bad.tolist() == [False, False, True, False, *(True for _ in other)]


def test_labels_may_have_names():
    schema = Schema((Label("y", values=("- 50000.", "50000+.")), Categorical("c")))
    cells = [" 50000+.", "- 50000."]
    table = typed_table({"y": cells, "c": ["a", "b"]}, schema)
    assert table["y"].to_pylist() == [1.0, 0.0]
    for bad in ("1", "", None):
        with pytest.raises(UserError, match=r"row 2, column y: .* is not a label, '- 50000.' or"):
            typed_table({"y": [cells[0], bad], "c": ["a", "b"]}, schema)
    schema = Schema((Label("y", values=("false", "true")), Categorical("c")))
    assert typed_table({"y": [True, False], "c": ["a", "b"]}, schema)["y"].to_pylist() == [1, 0]


def test_one_text_may_stand_against_all_others():
    schema = Schema((Label("y", positive="never"), Categorical("c")))
    cells = [" never", "never ", "Never", "once", "0"]
    table = typed_table({"y": cells, "c": ["a"] * 5}, schema)
    assert table["y"].to_pylist() == [1, 1, 0, 0, 0]
    for bad in ("", "  ", None):
        with pytest.raises(UserError, match=r"row 2, column y: value .* cannot be a label"):
            typed_table({"y": ["never", bad], "c": ["a", "b"]}, schema)


@pytest.mark.parametrize("cells", [["0", " 2.5", "1e3"], [0, 2.5, 1000]])
def test_weights_are_finite_and_not_negative(cells):
    schema = Schema((Label("y"), Weight("w"), Categorical("c")))
    columns = {"y": [0, 1, 0], "c": ["a", "b", "c"]}
    assert typed_table({**columns, "w": cells}, schema)["w"].to_pylist() == [0, 2.5, 1000]
    for bad in (-1, np.nan, 1e39, np.inf):
        wrong = [*cells[:2], "" if np.isnan(bad) else str(bad)]
        wrong = wrong if isinstance(cells[0], str) else [0.0, 2.5, bad]
        with pytest.raises(UserError, match=r"row 3, column w: value .* is not a weight, a"):
            typed_table({**columns, "w": wrong}, schema)


def test_groups_are_read_as_categories_are():
    schema = Schema((Label("y"), Group("g", dtype="integer"), Categorical("c")))
    columns = {"y": [0, 1], "c": ["a", "b"]}
    assert typed_table({**columns, "g": ["7", ""]}, schema)["g"].to_pylist() == [7, None]
    with pytest.raises(UserError, match="row 1, column g: value 'x' is not an integer"):
        typed_table({**columns, "g": ["x", "1"]}, schema)


MESSY = TextFormat(trim=True, missing=("?", "NA"))


def test_spaces_and_signs_of_missing_values_are_those_of_the_layout():
    cells = [" a ", "?", " NA", "na", "", "  "]
    assert typed(Categorical("c"), cells, MESSY)["c"].to_pylist() == [
        "a",
        None,
        None,
        "na",
        None,
        None,
    ]
    assert typed(Categorical("c"), cells)["c"].to_pylist() == [*cells[:4], None, "  "]
    found = typed(Numeric("x"), [" 1 ", "?", "NA"], MESSY)["x"].to_pylist()
    assert found == [1.0, None, None]
    assert "value '?' is not a finite number" in fault(Numeric("x"), ["?"])
    assert typed(Timestamp("t"), [" ? "], MESSY)["t_hour"].to_pylist() == [None]
    assert "value ' ?' is not a label" in fault_of_label(" ?")


def fault_of_label(cell):
    schema = Schema((Label("y"), Categorical("c")), MESSY)
    with pytest.raises(UserError) as raised:
        typed_table({"y": [cell], "c": ["a"]}, schema)
    return str(raised.value).replace("missing", f"{cell!r}")


def test_names_in_a_padded_header_are_trimmed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("y, c, x\n1, a, ?\n0, b, 2\n")
    schema = Schema((Label("y"), Categorical("c"), Numeric("x")), MESSY)
    (table,) = read_tables(path, schema)
    assert table.to_pylist() == [{"y": 1, "c": "a", "x": None}, {"y": 0, "c": "b", "x": 2}]
    np.testing.assert_array_equal(table["y"].to_numpy(), [1, 0])
