"""``prepare --inspect``: the text, the page and the files of a report on raw rows."""

import csv
import html.parser
import json
from collections import Counter

import numpy as np
import pytest

from deepfm_jax import Categorical, Label, Numeric, Schema, Timestamp, UserError
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.profiling import describe, inspect_source, write_inspection
from deepfm_jax.profiling.format import percent, printable
from deepfm_jax.profiling.output import FILES, check_absent
from deepfm_jax.profiling.page import to_html

NASTY = "<script>alert('$x_1$ & \"q\"')</script>"


class Page(html.parser.HTMLParser):
    """The tags, addresses and text of a page."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.addresses, self.text = Counter(), [], []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.addresses += [value for key, value in attrs if key in ("href", "src")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def clicks(tmp_path):
    """A table with values that no page may take for its own, and its schema."""
    rng = np.random.default_rng(3)
    path = tmp_path / "clicks.csv"
    words = [NASTY, "\x1b[31mred", "plain", "日本", "</style><b>"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "<i>name</i>", "price", "at"])
        for row in range(600):
            price = "" if rng.random() < 0.1 else f"{rng.lognormal(3, 2):.2f}"
            time = f"2024-03-{1 + row % 28:02} {row % 24:02}:30:00"
            writer.writerow([rng.integers(0, 2), words[rng.integers(0, 5)], price, time])
    schema = Schema((Label("label"), Categorical("<i>name</i>"), Numeric("price"), Timestamp("at")))
    return path, schema


def inspected(clicks, **options):
    path, schema = clicks
    return inspect_source(
        "tabular", source=path, options=BuildOptions(schema=schema.to_dict(), **options)
    )


def test_values_are_text_on_the_page_and_nothing_comes_from_elsewhere(clicks):
    page = to_html(inspected(clicks))
    found = Page(page)
    assert not found.tags["script"]
    assert not found.tags["b"]
    assert not found.tags["i"]
    assert found.tags["style"] == 1
    text = "".join(found.text)
    assert NASTY[:30] in text
    assert "<i>name</i>" in text
    assert "日本" in text
    assert r"\x1b[31mred" in text
    assert "\x1b" not in page
    assert found.tags["img"] == 5  # spread and tenths, coverage, hours, days
    assert all(a.startswith(("data:image/svg+xml;base64,", "#column-")) for a in found.addresses)
    # The name spaces of SVG are no addresses, and stand within the pictures.
    assert "http" not in page


def test_the_same_data_give_the_same_page(clicks):
    assert to_html(inspected(clicks)) == to_html(inspected(clicks))


def test_the_text_is_aligned_and_has_no_control_characters(clicks):
    text = describe(inspected(clicks))
    assert "\x1b" not in text
    assert printable(NASTY) in text
    lines = text.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("column "))
    heading, first, second = lines[start : start + 3]
    assert first.startswith("<i>name</i>  categorical ")
    place = heading.index("missing") + len("missing")
    assert first[:place].rstrip()[-1] == second[:place].rstrip()[-1] == "%"


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0%"), (1.0, "100%"), (1e-9, "<0.01%"), (1 - 1e-9, ">99.99%"), (0.0004, "0.04%"),
     (0.9995, "99.95%"), (0.256, "25.6%"), (None, "-")],
)  # fmt: skip
def test_shares_near_none_or_all_are_not_rounded_to_them(share, shown):
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a\nb\t", r"a\nb\t"), ("\u202egnp", r"\u202egnp"), ("x" * 50, "x" * 37 + "..."), ("é", "é")],
)
def test_what_would_move_a_cursor_is_written_out(value, shown):
    assert printable(value) == shown


def test_all_files_are_written_or_none(clicks, tmp_path, monkeypatch):
    found = inspected(clicks)
    out = tmp_path / "new" / "out"
    write_inspection(found, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    content = json.loads((out / "inspection.json").read_text())
    assert content["columns"][0]["name"] == "<i>name</i>"
    assert [split["rows"] for split in content["splits"]] == [group.rows for group in found.splits]
    assert (out / "inspection.txt").read_text() == describe(found)
    with pytest.raises(UserError, match=r"inspection.txt already exists.*--overwrite"):
        check_absent(out)
    other = tmp_path / "other"
    monkeypatch.setattr(
        "pathlib.Path.write_text",
        lambda path, *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(UserError, match="no space left on the disk"):
        write_inspection(found, other)
    assert not list(other.iterdir())
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)


def test_rows_are_read_as_prepare_reads_them(clicks, tmp_path):
    path, _ = clicks
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines, "1,more,cells,than,columns"]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 602, 5 columns instead of 4"):
        inspected(clicks)
    found = inspected(clicks, max_bad_rows=1)
    assert found.rejected == (1, 0, 0)
    assert sum(group.rows for group in found.splits) == 600
    by_time = inspected(clicks, max_bad_rows=1, time_column="at")
    last = by_time.columns[2].last
    assert last < "2024-03-24"
    assert by_time.columns[2].drift["test"].missing == 0
    with pytest.raises(UserError, match="name them with --source"):
        inspect_source("frappe")
    assert not [path for path in tmp_path.iterdir() if path.name != "clicks.csv"]


@pytest.mark.parametrize("name", ["avazu", "census_income", "criteo", "frappe"])
def test_the_real_samples_are_inspected(data_folder, name, tmp_path):
    if not (data_folder / name).is_dir():
        pytest.skip(f"{data_folder / name} is not there")
    found = inspect_source(name, source=data_folder / name)
    write_inspection(found, tmp_path)
    train = found.splits[0]
    for column in found.columns:
        assert column.rows == train.rows
        assert column.missing.rows + sum(group.rows for group in column.top) <= train.rows
        if column.coverage is not None:
            assert 0 < column.coverage.share <= 1
        for drift in column.drift.values():
            # The samples' splits are draws; times and ids of rows apart, nothing has shifted.
            assert drift.psi < max(0.1, 5 * drift.psi_by_chance)
    page = Page((tmp_path / "inspection.html").read_text())
    assert page.tags["section"] == len(found.columns)
    assert page.tags["script"] == 0
