"""The collectives of a compiled program, its copies of a table's arrays, and the bytes of both.

Every collective that the program reaches from its entry is reported, once for each way to it: in
the body of a ``while`` once, however often the loop runs; in each branch of a ``conditional``,
though one is taken; within a fusion. Of an asynchronous pair the ``-start`` is counted, and not
the ``-done``, which ends the same transfer.
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
      operands: What each device puts in; a combined collective has several.
      results: What each takes out.
      loops: JAX's names of the ``while`` loops around it, the outermost first.
      computation: The HLO computation that it stands in.
      channel: Channel id; None where there is none.
      group: Devices of a replica group; None where the text names no groups.
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
        """Of one device: of all operands or of all results, whichever is more.

        They differ where devices' parts are joined (an all-gather's results are more) or parted
        (a reduce-scatter's operands). A device's own share is counted with them; and a ring of n
        devices moves an all-reduce's bytes 2 (n - 1) / n times.
        """
        return max(sum(shape.bytes for shape in side) for side in (self.operands, self.results))

    @property
    def padded_bytes(self) -> int:
        """The same in whole tiles, as the arrays lie in a TPU's memory."""
        sides = (self.operands, self.results)
        return max(sum(shape.padded_bytes for shape in side) for side in sides)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
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
      ValueError: one begins and never ends.
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
    """Bytes copied of arrays with so many rows, whole or by slices, by the array's shape.

    Between a TPU's HBM and the memory on its chip for the most part: the compiler likes to scatter
    there, and small arrays find room. A loop's are counted once.
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
    """Every instruction from a computation down, with its computation and the loops around it."""
    for instruction in module.computations[computation]:
        yield instruction, computation, loops
        inner = (*loops, instruction.source) if instruction.opcode == "while" else loops
        for callee in instruction.callees:
            yield from _reached(module, callee, inner)


def _operands(instruction: Instruction, instructions: Sequence[Instruction]) -> tuple[Shape, ...]:
    named = {other.name: other.shapes for other in instructions}
    return tuple(shape for name in instruction.operands for shape in named[name])


def _results(start: Instruction, instructions: Sequence[Instruction]) -> tuple[Shape, ...]:
    """Of a ``-start`` they are its ``-done``'s: its own tuple repeats the operands."""
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
    """Replica groups are written out, as ``[groups,size]<=[n]``, or by axes of a mesh."""
    if found := re.search(r"\breplica_groups=\{\{([\d,]+)\}", attributes):
        return len(found[1].split(","))
    if found := re.search(r"\breplica_groups=\[\d+,(\d+)\]<=", attributes):
        return int(found[1])
    if found := re.search(r"\breplica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", found[2]))
    return None
