"""The line that is named for a row, where cells of rows before it hold line breaks."""

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deepfm_jax import Categorical, Ignored, Label, Schema, TextFormat, UserError
from deepfm_jax.readers import line_numbers
from deepfm_jax.readers.line_numbers import LineNumbers
from deepfm_jax.readers.sources import RowReport, read_tables

SCHEMA = Schema((Label("click"), Ignored("note"), Categorical("app")))
HEADER = "click,note,app\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("broken", ['1,n,"x\ny"', '1,"x\ny",a', '1,"x"",\ny",a'])
@pytest.mark.parametrize(
    ("bad", "reason"), [("2,n,a", "column click"), ("1,n", "2 columns instead")]
)
def test_a_bad_row_is_named_by_its_line_in_the_file(tmp_path, broken, bad, reason, end):
    path = tmp_path / "rows.csv"
    text = HEADER + f"{broken}\n{broken}\n{bad}\n" + f"{broken}\n" * 50 + f"{bad}\n1,n,a\n"
    path.write_text(text.replace("\n", end), newline="")
    with pytest.raises(UserError, match=f"rows.csv, line 6, {reason}"):
        list(read_tables(path, SCHEMA))
    for block_bytes in (100, 1 << 16):
        rejected = []
        report = RowReport(on_rejected=rejected.append)
        list(read_tables(path, SCHEMA, max_bad_rows=2, report=report, block_bytes=block_bytes))
        assert [row.position for row in rejected] == [6, 107]


TOKENS = [
    "a",
    '"a"',
    '"a\nb"',
    '"a,""b\r\n"',
    'a"b',
    '"',
    '""',
    '"a"b',
    "",
    '"x\r"',
    ",",
    "\n",
    "\r",
]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(TOKENS), max_size=20).map("".join),
    st.booleans(),
    st.sampled_from([1, 3, 1 << 20]),
)
@example('5" disc,"a\nb",c\n"d,\n""",5",\r\n', True, 1)
def test_rows_are_those_of_the_reader(tmp_path_factory, content, header, block_bytes):
    path = tmp_path_factory.mktemp("lines") / "rows.csv"
    path.write_text(('a,b"\n' if header else "") + content, newline="")
    numbers = []
    try:
        table = pa_csv.read_csv(
            path,
            pa_csv.ReadOptions(use_threads=False, column_names=["a", "b"], skip_rows=int(header)),
            pa_csv.ParseOptions(
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=lambda row: (numbers.append(row.number), "skip")[1],
            ),
        )
    except pa.ArrowInvalid:
        return  # No rows, or none that can be split.
    rows = table.num_rows + len(numbers) + header
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_numbers, "_BLOCK_BYTES", block_bytes)
        lines = LineNumbers(path, TextFormat(header=header))
        found = [lines.line(row) for row in range(1, rows + 1)]
        with pytest.raises(UserError, match="changed while it was being read"):
            lines.line(rows + 1)
    # A row begins behind a line break, and none of the breaks between two rows is left out.
    assert found == sorted(set(found))
    breaks = content.replace("\r\n", "\n").replace("\r", "\n")
    assert not found or found[-1] <= 1 + header + breaks.count("\n")
