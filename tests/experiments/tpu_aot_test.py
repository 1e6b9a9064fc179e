"""The train step compiled for TPU slices at a billion rows: its traffic and its memory.

libtpu is loaded in the launcher's process instead of here, so that it cannot affect other tests;
each slice is compiled once, in one test, wherever pytest-xdist runs it.
"""

import importlib.util
import json
import os

import pytest

from deepfm_jax.embedding.exchange import capacity
from tests.launchers import mistake, run

with_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, which compiles for TPUs, is not installed (Linux on x86-64 has it)",
)

ROWS, FIELDS, EMBED_DIM, BATCH = 10**9, 39, 16, 1024
# Bytes of a row: its vector and first-order weight; held with one Adagrad number for each.
ROW_BYTES = 4 * (EMBED_DIM + 1)
HELD_ROW_BYTES = ROW_BYTES + 2 * 4
READS = BATCH * FIELDS
# DeepFM's bias, and the tower: kernels and biases of 624-400-400-400-1.
DENSE_BYTES = 4 * (1 + 624 * 400 + 2 * 400 * 400 + 400 + 3 * 400 + 1)

# A torus of two dimensions and one of three. What a step sends and holds follows from the number of
# chips and the precision of the exchange by the formulas below; each program takes half a minute.
CHIPS = {"v5e:4x4": 16, "v5p:4x4x4": 64}
MEMORY_GB = {16: 8.0, 64: 2.5}


def step_bytes(chips, row_bytes=ROW_BYTES):
    """Bytes that a device sends in a step: rows and ids of a round, both ways; dense gradients."""
    return 2 * capacity(READS, chips, 1.0) * chips * (row_bytes + 4) + DENSE_BYTES


def figures(folder, *flags):
    done = run("benchmarks.tpu_aot", *flags, f"--out={folder}")
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "results.json").read_text())["figures"]
    table = (folder / "table.md").read_text()
    assert table in f"{done.stdout}\n"
    assert all(f"| {figure['topology']} | {figure['chips']} |" in table for figure in found)
    return found


@with_libtpu
@pytest.mark.parametrize(
    ("topology", "dtype", "row_bytes"),
    [("v5e:4x4", "float32", ROW_BYTES), ("v5p:4x4x4", "bfloat16", ROW_BYTES // 2)],
)
def test_a_step_moves_and_holds_what_its_batch_asks_for_and_not_the_table(
    topology, dtype, row_bytes, tmp_path
):
    flags = (f"--topologies={topology}", f"--exchange_dtype={dtype}", f"--rows={ROWS}")
    (figure,) = figures(tmp_path, *flags)
    chips, memory, collectives = CHIPS[topology], figure["memory"], figure["collectives"]
    assert figure["chips"] == chips
    shard_bytes = ROWS / chips * ROW_BYTES

    # No collective has the size of the table, or of a device's share of it, and the vectors are not
    # copied on the device. (Arrays of one number per row may be copied if a shard of them fits the
    # on-chip memory: the compiler's choice, for scattering there.)
    assert max(collective["bytes"] for collective in collectives) < shard_bytes / 50
    assert all(shape.count(",") == 0 for shape in figure["copied_table_bytes"])
    # Temporaries are small too: besides the batch's own, newer compilers hold one such array.
    on_its_way = 4 * ROWS / chips if figure["copied_table_bytes"] else 0
    assert memory["temporaries"] < 0.1e9 + on_its_way

    # Collectives are in the two loops of rounds, forward and back, or outside loops: those counted
    # once run once if ids are not skewed.
    assert all(len(collective["loops"]) <= 1 for collective in collectives)
    loops = {collective["computation"] for collective in collectives if collective["loops"]}
    assert len(loops) == 2

    # All arguments except the batch (ids, labels, mask) are updated in place. The batch's arrays
    # are padded to tiles, to less than twice their size.
    assert figure["arguments"] - figure["aliased_arguments"] == 3
    assert memory["arguments"] - memory["aliased"] < 2 * 4 * BATCH * (FIELDS + 2)
    assert memory["outputs"] - memory["aliased"] < 1e4

    assert figure["collective_bytes"] == pytest.approx(step_bytes(chips, row_bytes), rel=0.001)

    # A device holds its share of the table and of the row state, and little else.
    held = ROWS / chips * HELD_ROW_BYTES
    assert held < memory["total"] < held + 0.15e9
    assert memory["total"] < MEMORY_GB[chips] * 1e9
    assert figure["flops"] > 0
    assert figure["bytes_accessed"] > 0


@pytest.mark.parametrize("chips", [16, 64, 256])
def test_a_step_sends_little_more_than_its_batch(chips):
    # Rounds add room for chance: C is four standard deviations above the mean of the rows asked of
    # an owner.
    own = 2 * READS * (ROW_BYTES + 4) + DENSE_BYTES
    assert own <= step_bytes(chips) <= 1.25 * own


@with_libtpu
def test_left_to_the_compiler_a_lookup_gathers_a_table_that_is_smaller_than_the_batch(tmp_path):
    flags = ("--program=plain_lookup", "--rows=79872", "--topologies=v5e:4x4")
    (figure,) = figures(tmp_path, *flags)
    (gather,) = figure["collectives"]
    assert gather["kind"] == "all-gather"
    assert gather["bytes"] == 79872 * EMBED_DIM * 4


@with_libtpu
def test_left_to_the_compiler_each_device_gets_the_rows_of_the_whole_batch(tmp_path):
    flags = ("--program=plain_lookup", f"--rows={ROWS}", "--batch_per_device=64")
    for figure in figures(tmp_path, *flags, "--topologies=v5e:4x4,v5p:4x4x4"):
        largest = max(collective["bytes"] for collective in figure["collectives"])
        assert largest == figure["chips"] * 64 * FIELDS * EMBED_DIM * 4


def test_mistakes_are_one_line():
    verb = "benchmarks.tpu_aot"
    assert (
        mistake(verb, "--rows=many")
        == "error: --rows=many: could not convert string to float: 'many'"
    )
    assert "--rows=5: a table of 5 rows leaves some of 39 fields" in mistake(verb, "--rows=5")
    assert "--program=step is unknown; use one of ['train_step'," in mistake(verb, "--program=step")
    assert "--row_optimizer=lamb is unknown" in mistake(verb, "--row_optimizer=lamb")


@with_libtpu
def test_slices_that_do_not_exist_or_cannot_hold_the_table_are_reported(tmp_path):
    def reported(*flags):
        return mistake("benchmarks.tpu_aot", f"--out={tmp_path}", *flags)

    assert "topology 'v9:4x4': INVALID_ARGUMENT" in reported("--topologies=v9:4x4")
    assert "topology 'v5e': INVALID_ARGUMENT" in reported("--topologies=v5e")
    message = reported("--topologies=v5e:4x4", "--rows=3e9")
    assert message.startswith("error: v5e:4x4, 3,000,000,000 rows: field_dims sum to ")


def test_without_libtpu_the_launcher_says_what_to_install(tmp_path, monkeypatch):
    # A module that shadows an installed one and fails to import.
    (tmp_path / "libtpu.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    # A process that imports libtpu sets it, and its children would inherit it.
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    message = mistake("benchmarks.tpu_aot", "--topologies=v5e:4x4", f"--out={tmp_path}")
    assert message.endswith("pip install 'jax[tpu]' on Linux, x86-64")
