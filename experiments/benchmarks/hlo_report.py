"""Reports a compiled program's collectives, its copies of table arrays, and the bytes of both.

Every collective that the program reaches from its entry is reported, once for each call path: once
in the body of a ``while``, however often the loop runs; in each branch of a ``conditional``, though
only one is taken; and within fusions. Of an asynchronous pair only the ``-start`` is counted; the
``-done`` ends the same transfer.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.benchmarks.hlo_text import Instruction, Module, Shape

KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation.

    Attributes:
      kind: One of ``KINDS``.
      operands: Inputs of each device; a combined collective has several.
      results: Outputs of each device.
      loops: JAX's names of the ``while`` loops around it, the outermost first.
      computation: HLO computation that contains it.
      channel: Channel id; None if there is none.
      group: Devices of a replica group; None if the text names no groups.
      source: JAX's name of the operation.
    """

    kind: str
    operands: tuple[Shape, ...]
    results: tuple[Shape, ...]
    loops: tuple[str, ...]
    computation: str
    channel: int | None
    group: int | None
    source: str

    @property
    def bytes(self) -> int:
        """Bytes of one device: of all operands or of all results, whichever is more.

        They differ if devices' parts are joined (an all-gather has larger results) or split (a
        reduce-scatter has larger operands). A device's own share is included. A ring of n devices
        moves an all-reduce's bytes 2 (n - 1) / n times.
        """
        return max(sum(shape.bytes for shape in side) for side in (self.operands, self.results))

    @property
    def padded_bytes(self) -> int:
        """``bytes`` in whole tiles, as the arrays are laid out in a TPU's memory."""
        sides = (self.operands, self.results)
        return max(sum(shape.padded_bytes for shape in side) for side in sides)

    def to_dict(self) -> dict[str, Any]:
        """Converts to plain data for JSON."""
        return {
            **dataclasses.asdict(self),
            "operands": [str(shape) for shape in self.operands],
            "results": [str(shape) for shape in self.results],
            "bytes": self.bytes,
            "padded_bytes": self.padded_bytes,
        }


def collectives(module: Module) -> list[Collective]:
    """The collectives of a module, in the order in which they are reached.

    Raises:
      ValueError: an asynchronous collective never ends.
    """
    return [
        Collective(
            kind=instruction.opcode.removesuffix("-start"),
            operands=_operands(instruction, module.computations[computation]),
            results=_results(instruction, module.computations[computation]),
            loops=loops,
            computation=computation,
            channel=_channel(instruction.attributes),
            group=_group(instruction.attributes),
            source=instruction.source,
        )
        for instruction, computation, loops in _reached(module, module.entry, ())
        if instruction.opcode.removesuffix("-start") in KINDS
    ]


def copies(module: Module, rows: int) -> dict[str, int]:
    """Bytes copied of arrays with ``rows`` rows, whole or by slices, by the array's shape.

    Most copies are between a TPU's HBM and its on-chip memory: the compiler prefers to scatter
    there, and small arrays fit. Copies in a loop are counted once.
    """
    total: dict[str, int] = {}
    for instruction, computation, _ in _reached(module, module.entry, ()):
        if instruction.opcode.removesuffix("-start") in ("copy", "slice"):
            others = module.computations[computation]
            (source,) = _operands(instruction, others)
            if source.dims[:1] == (rows,):
                copied = sum(shape.bytes for shape in _results(instruction, others))
                total[str(source)] = total.get(str(source), 0) + copied
    return total


def _reached(
    module: Module, computation: str, loops: tuple[str, ...]
) -> Iterator[tuple[Instruction, str, tuple[str, ...]]]:
    """Yields all instructions below a computation, with their computations and loops."""
    for instruction in module.computations[computation]:
        yield instruction, computation, loops
        inner = (*loops, instruction.source) if instruction.opcode == "while" else loops
        for callee in instruction.callees:
            yield from _reached(module, callee, inner)


def _operands(instruction: Instruction, instructions: Sequence[Instruction]) -> tuple[Shape, ...]:
    named = {other.name: other.shapes for other in instructions}
    return tuple(shape for name in instruction.operands for shape in named[name])


def _results(start: Instruction, instructions: Sequence[Instruction]) -> tuple[Shape, ...]:
    """The results; of a ``-start``, those of its ``-done``, as its own tuple repeats operands."""
    if not start.opcode.endswith("-start"):
        return start.shapes
    done = start.opcode.removesuffix("-start") + "-done"
    for instruction in instructions:
        if instruction.opcode == done and start.name in instruction.operands:
            return instruction.shapes
    raise ValueError(f"HLO: {start.opcode} %{start.name} has no {done}")


def _channel(attributes: str) -> int | None:
    found = re.search(r"\bchannel_id=(\d+)", attributes)
    return int(found[1]) if found else None


def _group(attributes: str) -> int | None:
    """Devices per replica group, written as a list, as ``[groups,size]<=[n]`` or by mesh axes."""
    if found := re.search(r"\breplica_groups=\{\{([\d,]+)\}", attributes):
        return len(found[1].split(","))
    if found := re.search(r"\breplica_groups=\[\d+,(\d+)\]<=", attributes):
        return int(found[1])
    if found := re.search(r"\breplica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", found[2]))
    return None
