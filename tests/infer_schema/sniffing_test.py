"""The layout that a text file is taken to have, by its first lines."""

import pathlib

import pytest

from deepfm_jax import TextFormat
from deepfm_jax.infer_schema.sniffing import sniff

PATH = pathlib.Path("rows.csv")


def test_lines_that_all_begin_with_a_quote_are_a_row_each():
    lines = ["a,b,click", *(f'"disc{i},{i},1' for i in range(50))]
    text, rows = sniff(PATH, lines)
    assert text == TextFormat(quoting=False)
    assert rows == [line.split(",") for line in lines[:50]]


def test_quoted_cells_may_run_over_lines_that_have_cells_alike():
    lines = ["a,b,click", *(line for i in range(30) for line in (f'{i},"one', 'two",1'))]
    text, rows = sniff(PATH, lines)
    assert text == TextFormat()
    assert rows[1:] == [[str(i), "one\ntwo", "1"] for i in range(30)]


def test_a_sample_may_end_within_a_cell():
    lines = [line for i in range(30) for line in (f'{i},"one', '"",two",1')]
    text, rows = sniff(PATH, lines[:-1])
    assert text == TextFormat()
    assert rows == [[str(i), 'one\n",two', "1"] for i in range(29)]


def test_few_stray_quotes_among_cells_that_run_over_lines_are_no_hindrance():
    lines = [line for i in range(30) for line in (f'{i},"one', "and", 'two",1')]
    lines[30] = '10,"one" more'
    text, rows = sniff(PATH, lines)
    assert text == TextFormat()
    assert rows[0] == ["0", "one\nand\ntwo", "1"]


@pytest.mark.parametrize("separator", ["|", ";", "\t"])
def test_the_delimiter_of_the_rows_is_not_that_of_the_values_in_a_cell(separator):
    lines = ["tags,click", *(separator.join(("x1", "y2", f"z{i},0")) for i in range(20))]
    text, rows = sniff(PATH, lines)
    assert text == TextFormat(",")
    assert rows[1] == [separator.join(("x1", "y2", "z0")), "0"]


def test_of_several_delimiters_that_fit_the_one_of_most_cells_is_taken():
    lines = ["a, b;c;click", *(f"{i}, 5;{i};1" for i in range(20))]
    assert sniff(PATH, lines)[0].delimiter == ";"
