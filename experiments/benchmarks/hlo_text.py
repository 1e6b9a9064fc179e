"""Parses optimized HLO text: computations, their instructions, and array layouts.

It reads as much of the syntax of ``jax.stages.Compiled.as_text()`` as is needed to follow calls,
operands and results. An instruction that cannot be parsed is an error; none is skipped.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

_HEADER = re.compile(r"(ENTRY )?%([\w.\-]+) .*\{\s*$")
_START = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_CALLS = re.compile(
    r"\b(?:body|condition|calls|to_apply|(?:true|false)_computation|branch_computations"
    r"|called_computations)=(\{[^{}]*\}|%[\w.\-]+)"
)
_ALIAS = re.compile(r"\{[\d, ]*\}: \(\d+, \{[\d, ]*\}(?:, [\w\-]+)?\)")
_NO_DATA = ("token", "opaque")


@dataclasses.dataclass(frozen=True)
class Shape:
    """Shape of an array in HLO.

    Attributes:
      dtype: HLO's name of the dtype: ``f32``, ``s32``, ``bf16``.
      dims: Size of each axis.
      layout: The text in braces, such as ``1,0:T(8,128)``: axes, minor first, and tiles; empty if
        there are no braces.
    """

    dtype: str
    dims: tuple[int, ...]
    layout: str = ""

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"

    @property
    def bytes(self) -> int:
        """Bytes of the elements, without padding."""
        return math.ceil(math.prod(self.dims) * _bits(self.dtype) / 8)

    @property
    def padded_bytes(self) -> int:
        """Bytes in a TPU's memory, in whole tiles (tiles within tiles add no more padding)."""
        order, _, tiles = self.layout.partition(":")
        tile = re.match(r"T\(([\d,]+)\)", tiles)
        if tile is None:
            return self.bytes
        minor_first = [self.dims[axis] for axis in _integers(order)]
        for place, size in enumerate(reversed(_integers(tile[1]))):
            if place == len(minor_first):
                minor_first.append(1)
            minor_first[place] = -(-minor_first[place] // size) * size
        return math.ceil(math.prod(minor_first) * _bits(self.dtype) / 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """``%name = shapes opcode(%operands), attributes``.

    Attributes:
      name: Name without the percent sign.
      shapes: Shape of the result; for a tuple, the shapes of its elements.
      opcode: Opcode, such as ``all-reduce-start``.
      operands: Names of the operands.
      attributes: Attributes as text.
    """

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    @property
    def source(self) -> str:
        """JAX's name of the operation; the instruction's own name if there is none."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else self.name

    @property
    def callees(self) -> list[str]:
        """Names of the computations that it calls."""
        return [name for part in _CALLS.findall(self.attributes) for name in _NAME.findall(part)]


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program.

    Attributes:
      entry: Name of the entry computation.
      computations: Instructions of each computation, by name.
      aliased: Number of arguments whose memory is reused for results.
    """

    entry: str
    computations: Mapping[str, Sequence[Instruction]]
    aliased: int


def read(text: str) -> Module:
    """Parses a module.

    Raises:
      ValueError: the text has syntax that this parser does not know.
    """
    entry, aliased = "", 0
    computations: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if line.startswith("HloModule"):
            aliases = line.partition("input_output_alias=")[2]
            aliased = len(_ALIAS.findall(aliases.partition("entry_computation_layout=")[0]))
        elif header := _HEADER.match(line):
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif start := _START.match(line):
            current.append(_instruction(start[1], line[start.end() :]))
    if not entry:
        raise ValueError("HLO without an entry computation")
    return Module(entry, computations, aliased)


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) if text.startswith("(") else text.find(" ")
    opcode = _OPCODE.match(text, end)
    if end < 0 or opcode is None:
        raise ValueError(f"HLO: cannot read %{name} = {text[:100]}")
    close = _closing(text, opcode.end() - 1)
    return Instruction(
        name=name,
        shapes=tuple(_shapes(text[:end])),
        opcode=opcode[1],
        operands=tuple(_NAME.findall(text[opcode.end() : close])),
        attributes=text[close:],
    )


def _closing(text: str, start: int) -> int:
    """The position after the parenthesis that closes the one at ``start``."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if not depth:
            return place + 1
    raise ValueError(f"HLO: parentheses do not close in {text[:100]}")


def _shapes(text: str) -> Iterator[Shape]:
    for dtype, dims, layout in _SHAPE.findall(re.sub(r"/\*.*?\*/", "", text)):
        if dtype not in _NO_DATA:
            yield Shape(dtype, tuple(_integers(dims.replace("<=", ""))), layout)


def _bits(dtype: str) -> int:
    if dtype == "pred":
        return 8
    size = re.match(r"(?:s|u|f|bf|c)(\d+)", dtype)
    if size is None:
        raise ValueError(f"HLO: dtype {dtype!r} is unknown")
    return int(size[1])


def _integers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]
