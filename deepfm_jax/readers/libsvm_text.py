"""Parses lines of libsvm, libfm and libffm into arrays, a block of text at a time.

A line is ``label id:value id:value ...`` or, in libffm, ``label field:id:value ...``. NumPy splits
the bytes and Arrow reads the numbers, so only malformed lines are processed in Python.
"""

# pyarrow.compute creates its functions on import, so the type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64

from deepfm_jax.readers.row_checker import MalformedRow

# Kinds of bytes: bytes of a number (0), bytes that no number contains, and three separators.
_ODD, _SPACE, _NEWLINE, _COLON = 1, 2, 3, 4
_KINDS = np.full(256, _ODD, np.uint8)
_KINDS[list(b"0123456789+-.eE")] = 0
_KINDS[list(b" \t\r\v\f")] = _SPACE
_KINDS[ord("\n")], _KINDS[ord(":")] = _NEWLINE, _COLON

_COMMENT = re.compile(rb"#[^\n]*")
_INTEGER = r"^-?0*[0-9]{1,18}$"
# The largest int64, 9223372036854775807, has 19 digits; integers of 19 digits are compared with it.
_LONG_INTEGER, _LARGEST = r"^[1-9][0-9]{18}$", pa.scalar(str(2**63 - 1).encode())
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_SHOWN_CHARACTERS = 60
# Faults of a label or feature, in the order in which they are checked.
_PARTS, _LABEL, _FIELD, _ID, _VALUE = range(1, 6)


class FeatureRows(NamedTuple):
    """Consecutive rows of features.

    Attributes:
      lines: Line of each row in the file, from 1, [rows].
      labels: Label of each row, any finite number, [rows].
      offsets: Row r has the features from ``offsets[r]`` up to ``offsets[r + 1]``, [rows + 1].
      fields: Field of each feature, from 0, [features]; None if the format has no fields.
      ids: Id of each feature, from 0, [features].
      values: Value of each feature, any finite number, [features].
    """

    lines: Int64[np.ndarray, "rows"]
    labels: Float64[np.ndarray, "rows"]
    offsets: Int64[np.ndarray, "rows+1"]
    fields: Int64[np.ndarray, "features"] | None
    ids: Int64[np.ndarray, "features"]
    values: Float64[np.ndarray, "features"]

    @property
    def counts(self) -> Int64[np.ndarray, "rows"]:
        """Number of features in each row."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> Int64[np.ndarray, "features"]:
        """The row of each feature."""
        return np.repeat(np.arange(len(self.lines)), self.counts)

    @property
    def positions(self) -> Int64[np.ndarray, "features"]:
        """The position of each feature in its row, from 0."""
        return np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], self.counts)

    def lists(self, chosen: Bool[np.ndarray, "features"], *, weighted: bool) -> pa.ListArray:
        """The chosen features as one list per row: ids, or pairs of ``value`` and ``weight``.

        In-memory tables represent a column of several values the same way: the *value* of an
        element is the id here, and its *weight* is the value here.
        """
        counts = np.bincount(self.rows[chosen], minlength=len(self.lines))
        offsets = pa.array(np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]), pa.int32())
        elements = pa.array(self.ids[chosen])
        if weighted:
            weights = pa.array(self.values[chosen])
            elements = pa.StructArray.from_arrays([elements, weights], names=["value", "weight"])
        return pa.ListArray.from_arrays(offsets, elements)


def parse_rows(
    block: bytes, *, first_line: int = 1, with_fields: bool = False, width: int | None = None
) -> tuple[FeatureRows, list[MalformedRow]]:
    """Parses a block of whole lines into rows and malformed rows.

    Spaces or tabs separate features. ``#`` starts a comment; blank lines and lines with only a
    comment are skipped.

    Args:
      block: Lines, each with its line break.
      first_line: Number of the first line in the file.
      with_fields: Whether features are ``field:id:value`` rather than ``id:value``.
      width: Number of features that every row must have; None accepts any number.
    """
    content = _COMMENT.sub(b"", block) if b"#" in block else block
    atoms = _Atoms(content)
    # A feature or a label consists of one or more atoms, joined by colons.
    starts = np.flatnonzero(atoms.before != _COLON)
    sizes = np.diff(starts, append=len(atoms.before))
    lines = atoms.lines[starts]
    is_label = np.diff(lines, prepend=-1) != 0
    row_of = np.cumsum(is_label) - 1
    parts = 3 if with_fields else 2
    faults = np.where(sizes == np.where(is_label, 1, parts), 0, np.where(is_label, _LABEL, _PARTS))
    at_labels = np.flatnonzero(is_label & (faults == 0))
    labels = np.zeros(int(is_label.sum()))
    labels[row_of[at_labels]] = _checked(_numbers, atoms, starts, at_labels, 0, faults, _LABEL)
    features = np.flatnonzero(~is_label & (faults == 0))
    fields = None
    if with_fields:
        fields = _checked(_whole_numbers, atoms, starts, features, 0, faults, _FIELD)
    ids = _checked(_whole_numbers, atoms, starts, features, parts - 2, faults, _ID)
    values = _checked(_numbers, atoms, starts, features, parts - 1, faults, _VALUE)

    good = np.bincount(row_of, faults > 0, minlength=len(labels)) == 0
    counts = np.bincount(row_of, minlength=len(labels)) - 1
    log = _MalformedRows(block, first_line, parts)
    for start in _first_of_each(row_of, np.flatnonzero(faults)):
        stop = starts[start] + sizes[start]
        token = b":".join(atoms.text[int(starts[start]) : int(stop)].to_pylist())
        log.add(int(lines[start]), log.describe(token, int(faults[start])))
    if width is not None:
        for row in np.flatnonzero(good & (counts != width)):
            found = "1 feature" if counts[row] == 1 else f"{counts[row]} features"
            log.add(int(lines[is_label][row]), f"{found} instead of {width}")
        good &= counts == width
    kept = good[row_of[features]]
    rows = FeatureRows(
        lines=lines[is_label][good] + first_line,
        labels=labels[good],
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[good])]),
        fields=None if fields is None else fields[kept],
        ids=ids[kept],
        values=values[kept],
    )
    return rows, sorted(log.rows, key=lambda row: row.position)


class _Atoms:
    """The strings between the spaces, line breaks and colons of a text.

    Attributes:
      text: The atoms as binary strings; only an atom next to a colon may be empty.
      before: The kind of the byte before each atom, [atoms].
      lines: The line of each atom, from 0, [atoms].
      odd: Whether any atom contains a byte that no number contains.
    """

    def __init__(self, content: bytes):
        data = np.frombuffer(content, np.uint8)
        kinds = _KINDS[data]
        ends = np.flatnonzero(kinds >= _SPACE)
        after = kinds[ends]
        before = np.concatenate([np.full(1, _NEWLINE, np.uint8), after[:-1]])[: len(ends)]
        lengths = np.diff(ends, prepend=-1) - 1
        lines = np.cumsum(before == _NEWLINE) - 1
        kept = (lengths > 0) | (after == _COLON) | (before == _COLON)
        offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths[kept])])
        # With the separators removed, the atoms are contiguous.
        buffers = [pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data[kinds < _SPACE])]
        self.text = pa.Array.from_buffers(pa.binary(), int(kept.sum()), [None, *buffers])
        self.before, self.lines = before[kept], lines[kept]
        self.odd = bool((kinds == _ODD).any())


class _MalformedRows:
    """Collects the malformed rows of a block, with their text."""

    def __init__(self, block: bytes, first_line: int, parts: int):
        self.rows: list[MalformedRow] = []
        self._block, self._first_line = block, first_line
        self._form = "field:id:value" if parts == 3 else "id:value"
        self._lines: list[bytes] | None = None

    def add(self, line: int, reason: str) -> None:
        """Adds the row on a line of the block, counted from 0."""
        if self._lines is None:
            self._lines = self._block.split(b"\n")
        text = self._lines[line].decode(errors="backslashreplace").rstrip("\r")
        message = f"{reason} in {text[:_SHOWN_CHARACTERS]!r}"
        self.rows.append(MalformedRow(line + self._first_line, message, text))

    def describe(self, token: bytes, kind: int) -> str:
        """Describes the fault of a label or a feature."""
        text = token.decode(errors="backslashreplace")
        shown = repr(text[:_SHOWN_CHARACTERS])
        if kind == _PARTS:
            return f"{shown} is not {self._form}"
        if kind == _LABEL:
            return f"label {shown} is not a number"
        field, id_, value = text.split(":")[0], *text.split(":")[-2:]
        if kind == _VALUE:
            return f"feature {shown}: value {value[:_SHOWN_CHARACTERS]!r} is not a finite number"
        name, number = ("field", field) if kind == _FIELD else ("id", id_)
        return f"feature {shown}: {name} {number[:_SHOWN_CHARACTERS]!r} is not an integer from 0"


def _first_of_each(row_of: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The first of the given tokens in each row."""
    return tokens[np.unique(row_of[tokens], return_index=True)[1]]


def _checked(read, atoms: _Atoms, starts, tokens, part: int, faults, fault: int) -> np.ndarray:
    """One part of each token as a number. A bad part becomes 0 and is recorded in ``faults``."""
    numbers, bad = read(atoms.text.take(pa.array(starts[tokens] + part)), atoms.odd)
    wrong = tokens[bad]
    faults[wrong] = np.where(faults[wrong] == 0, fault, faults[wrong])
    return numbers


def _whole_numbers(text: pa.Array, odd: bool) -> tuple[np.ndarray, np.ndarray]:
    numbers, bad = _cast(text, pa.int64(), _is_integer, odd)
    return np.where(bad, 0, numbers), bad | (numbers < 0)


def _numbers(text: pa.Array, odd: bool) -> tuple[np.ndarray, np.ndarray]:
    numbers, bad = _cast(text, pa.float64(), _is_number, odd)
    bad = bad | ~np.isfinite(numbers)
    return np.where(bad, 0.0, numbers), bad


def _is_number(text: pa.Array) -> pa.Array:
    return pc.match_substring_regex(text, _NUMBER)


def _is_integer(text: pa.Array) -> pa.Array:
    long = pc.match_substring_regex(text, _LONG_INTEGER)
    return pc.or_(
        pc.match_substring_regex(text, _INTEGER), pc.and_(long, pc.less_equal(text, _LARGEST))
    )


def _cast(text: pa.Array, kind, is_one, odd: bool) -> tuple[np.ndarray, np.ndarray]:
    """The numbers, and a mask of the texts that are not numbers."""
    if not odd:  # Arrow also accepts 0x1f and nan, but their bytes are odd.
        try:
            return _as_text(text).cast(kind).to_numpy(), np.zeros(len(text), bool)
        except pa.ArrowInvalid:
            pass
    good = is_one(text)
    kept = pc.if_else(good, text, pa.scalar(b"0"))
    return _as_text(kept).cast(kind).to_numpy(), ~good.to_numpy(zero_copy_only=False)


def _as_text(binary: pa.Array) -> pa.Array:
    # The result is only cast to numbers, so it need not be valid UTF-8.
    return pa.Array.from_buffers(pa.string(), len(binary), binary.buffers(), offset=binary.offset)
