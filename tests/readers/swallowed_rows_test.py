"""Rows taken in by a cell without its last quote, and cells whose text only looks like them."""

import pytest

from deepfm_jax import Categorical, Label, Schema, UserError
from deepfm_jax.readers.sources import RowReport, read_tables

FIRST = Schema((Categorical("disc"), Categorical("size"), Label("click")))
MIDDLE = Schema((Categorical("size"), Categorical("disc"), Label("click")))
LAST = Schema((Label("click"), Categorical("size"), Categorical("disc")))
TWO_LABELS = Schema((Label("click"), Label("order"), Categorical("size"), Categorical("disc")))


def read(path, schema, rows, **options):
    header = ",".join(column.name for column in schema.columns)
    path.write_text("\n".join([header, *rows]) + "\n", newline="")
    report = RowReport()
    tables = list(read_tables(path, schema, report=report, **options))
    assert sum(table.num_rows for table in tables) == report.kept
    return report


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [21, 22, 23])
@pytest.mark.parametrize(
    ("schema", "row", "stray"),
    [
        (FIRST, "disc1,5,1", '"disc1,5,1'),
        (MIDDLE, "5,disc1,1", '5,"disc1,1'),
        (LAST, "1,5,disc1", '1,5,"disc1'),
        (TWO_LABELS, "1,,5,disc1", '1,,5,"disc1'),
    ],
    ids=["first", "middle", "last", "a label is missing"],
)
def test_rows_between_two_quotes_of_other_rows_are_not_lost(
    tmp_path, schema, row, stray, last, end
):
    rows = [row] * 60
    rows[20] = rows[last] = stray
    path = tmp_path / "rows.csv"
    content = [end.join(rows)]
    with pytest.raises(UserError, match=r"line 22, column disc: value .* spans whole rows"):
        read(path, schema, content)
    report = read(path, schema, content, max_bad_rows=1)
    assert (report.kept, report.rejected) == (59 - (last - 20), 1)


@pytest.mark.parametrize(
    ("schema", "row"),
    [
        (FIRST, '"two\nlines",5,1'),
        (LAST, '1,5,"two\nlines"'),
        (FIRST, '"one, two, three\nfour",5,1'),
        (MIDDLE, '5,"one, two\nthree, four",1'),
        (LAST, '1,5,"one\ntwo, three, four"'),
        (MIDDLE, '5,"disc1,1\ntwo",0'),
    ],
)
def test_text_with_a_line_break_is_text(tmp_path, schema, row):
    report = read(tmp_path / "rows.csv", schema, [row] * 5)
    assert (report.kept, report.rejected) == (5, 0)
