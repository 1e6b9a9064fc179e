"""Lines of libsvm, libfm and libffm as arrays, a block of text at a time.

``label id:value id:value ...`` or, in libffm, ``label field:id:value ...``. The bytes are split by
NumPy and the numbers read by Arrow, so that no line costs a step of Python but a bad one.
"""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int64

from deepfm_jax.readers.row_checker import MalformedRow

# Kinds of bytes: those of a number, others that a number cannot have, and the three that part.
_ODD, _SPACE, _NEWLINE, _COLON = 1, 2, 3, 4
_KINDS = np.full(256, _ODD, np.uint8)
_KINDS[list(b"0123456789+-.eE")] = 0
_KINDS[list(b" \t\r\v\f")] = _SPACE
_KINDS[ord("\n")], _KINDS[ord(":")] = _NEWLINE, _COLON

_COMMENT = re.compile(rb"#[^\n]*")
_INTEGER = r"^-?0*[0-9]{1,18}$"
# The largest of 64 bits; of 19 digits, as is 9223372036854775807, those up to it.
_LONG_INTEGER, _LARGEST = r"^[1-9][0-9]{18}$", pa.scalar(str(2**63 - 1).encode())
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_SHOWN_CHARACTERS = 60
# What may be wrong with a part of a line, in the order in which it is looked for.
_PARTS, _LABEL, _FIELD, _ID, _VALUE = range(1, 6)


class FeatureRows(NamedTuple):
    """Rows of features, one after the other.

    Attributes:
      lines: Line of each row in the file, from 1, [rows].
      labels: Any finite number, [rows].
      offsets: Row r has the features from ``offsets[r]`` up to ``offsets[r + 1]``, [rows + 1].
      fields: Field of each feature, from 0, [features]; None where the format has none.
      ids: Id of each feature, from 0, [features].
      values: A finite number of each feature, [features].
    """

    lines: Int64[np.ndarray, "rows"]
    labels: Float64[np.ndarray, "rows"]
    offsets: Int64[np.ndarray, "rows+1"]
    fields: Int64[np.ndarray, "features"] | None
    ids: Int64[np.ndarray, "features"]
    values: Float64[np.ndarray, "features"]

    @property
    def counts(self) -> Int64[np.ndarray, "rows"]:
        """How many features each row has."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> Int64[np.ndarray, "features"]:
        """The row of each feature."""
        return np.repeat(np.arange(len(self.lines)), self.counts)

    @property
    def positions(self) -> Int64[np.ndarray, "features"]:
        """The place of each feature in its row, from 0."""
        return np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], self.counts)

    def lists(self, chosen: Bool[np.ndarray, "features"], *, weighted: bool) -> pa.ListArray:
        """Some of the features as a list for each row: ids, or pairs of ``value`` and ``weight``.

        So a table in memory has the cells of a column of several values: the *value* of an element
        is the id here, and its *weight* the value.
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
    """The rows of a block of whole lines, and those that are none.

    Features are parted by spaces or tabs. ``#`` begins a comment; a line without anything else is
    no row.

    Args:
      block: Lines, each with its end.
      first_line: Number of the first of them in the file.
      with_fields: Whether features are ``field:id:value``, and not ``id:value``.
      width: Features that every row must have; None takes any number.
    """
    content = _COMMENT.sub(b"", block) if b"#" in block else block
    atoms = _Atoms(content)
    # A feature or a label is one atom, or several with colons between them.
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
    told = _Told(block, first_line, parts)
    for start in _first_of_each(row_of, np.flatnonzero(faults)):
        stop = starts[start] + sizes[start]
        token = b":".join(atoms.text[int(starts[start]) : int(stop)].to_pylist())
        told.add(int(lines[start]), told.fault(token, int(faults[start])))
    if width is not None:
        for row in np.flatnonzero(good & (counts != width)):
            features_told = "1 feature" if counts[row] == 1 else f"{counts[row]} features"
            reason = f"{features_told} instead of {width}"
            told.add(int(lines[is_label][row]), reason)
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
    return rows, sorted(told.malformed, key=lambda row: row.position)


class _Atoms:
    """What stands between the spaces, line ends and colons of a text.

    Attributes:
      text: The atoms as binary strings; one may be empty only beside a colon.
      before: The kind of byte before each, [atoms].
      lines: The line of each, from 0, [atoms].
      odd: Whether any has a byte that no number has.
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
        # Without the bytes that part them, the atoms lie one after the other.
        buffers = [pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data[kinds < _SPACE])]
        self.text = pa.Array.from_buffers(pa.binary(), int(kept.sum()), [None, *buffers])
        self.before, self.lines = before[kept], lines[kept]
        self.odd = bool((kinds == _ODD).any())


class _Told:
    """The malformed rows of a block, with their text."""

    def __init__(self, block: bytes, first_line: int, parts: int):
        self.malformed: list[MalformedRow] = []
        self._block, self._first_line = block, first_line
        self._form = "field:id:value" if parts == 3 else "id:value"
        self._lines: list[bytes] | None = None

    def add(self, line: int, reason: str) -> None:
        """A row, by its line in the block, from 0."""
        if self._lines is None:
            self._lines = self._block.split(b"\n")
        text = self._lines[line].decode(errors="backslashreplace").rstrip("\r")
        shown = f"{reason} in {text[:_SHOWN_CHARACTERS]!r}"
        self.malformed.append(MalformedRow(line + self._first_line, shown, text))

    def fault(self, token: bytes, kind: int) -> str:
        """What is wrong with a label or a feature."""
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
    """The first token of each row among some."""
    return tokens[np.unique(row_of[tokens], return_index=True)[1]]


def _checked(read, atoms: _Atoms, starts, tokens, part: int, faults, fault: int) -> np.ndarray:
    """One part of each token as a number, 0 where it is none and its fault noted."""
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
    """Numbers, and which texts are none."""
    if not odd:  # Arrow reads 0x1f and nan too, which have other bytes.
        try:
            return _as_text(text).cast(kind).to_numpy(), np.zeros(len(text), bool)
        except pa.ArrowInvalid:
            pass
    good = is_one(text)
    kept = pc.if_else(good, text, pa.scalar(b"0"))
    return _as_text(kept).cast(kind).to_numpy(), ~good.to_numpy(zero_copy_only=False)


def _as_text(binary: pa.Array) -> pa.Array:
    # Only numbers are read from it, so it need not be valid UTF-8.
    return pa.Array.from_buffers(pa.string(), len(binary), binary.buffers(), offset=binary.offset)
