"""Compiles the train step for TPU slices on a CPU host, and reports the cost for each chip.

``python -m experiments.benchmarks.tpu_aot --topologies=v5e:4x4,v5e:16x16 --rows=1e9,2e9`` needs
libtpu (Linux on x86-64) and about a minute per program, but no TPU. The program is the library's
own step on DeepFM with 39 fields; ``--program=plain_lookup`` instead compiles ``table[ids]`` on a
table split by rows, as the compiler handles it when left to itself.

Bytes are per device and step. Bytes in the two loops of rounds (the exchange of rows, forward and
back, see ``deepfm_jax/embedding/exchange.py``) are counted once per loop: a step takes one round
unless its ids are so skewed that an owner is asked for more rows than a round holds. Prints each
program's collectives and a table; writes ``results.json`` and ``table.md``.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags
from tqdm import tqdm

from deepfm_jax.errors import UserError
from deepfm_jax.files import write_atomically, write_json
from experiments import launcher

_TOPOLOGIES = flags.DEFINE_list(
    "topologies", ["v5e:4x4", "v5e:8x8", "v5e:16x16", "v6e:4x4", "v5p:4x4x4"], "Slices, by name."
)
_ROWS = flags.DEFINE_list("rows", ["1e9"], "Rows of the table, all fields together.")
_PROGRAM = flags.DEFINE_string("program", "train_step", "train_step or plain_lookup.")
_EMBED_DIM = flags.DEFINE_integer("embed_dim", 16, "D.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch_per_device", 1024, "Examples per chip.", lower_bound=1)
_ROW_OPTIMIZER = flags.DEFINE_string("row_optimizer", "rowwise_adagrad", "Row optimizer.")
_REPLICAS = flags.DEFINE_integer("replicas", 1, "Copies of the table.", lower_bound=1)
_EXCHANGE_DTYPE = flags.DEFINE_string("exchange_dtype", "float32", "float32 or bfloat16.")
_OUT = flags.DEFINE_string("out", "runs/tpu_aot", "Folder of results.")

_COLUMNS = {
    "slice": lambda f: f["topology"],
    "chips": lambda f: f"{f['chips']}",
    "rows of the table": lambda f: f"{f['rows']:,}",
    "collectives, MB per device and step": lambda f: f"{f['collective_bytes'] / 1e6:.2f}",
    "memory, GB per device": lambda f: f"{f['memory']['total'] / 1e9:.3f}",
    "of which temporaries, GB": lambda f: f"{f['memory']['temporaries'] / 1e9:.3f}",
    "GFLOP per device": lambda f: "unknown" if f["flops"] is None else f"{f['flops'] / 1e9:.2f}",
}
_ONCE = "Collectives in a loop of rounds are counted once: ids that are not skewed need one round."


def main() -> None:
    """Compiles all programs, prints the tables and writes the files."""
    import jax

    from deepfm_jax.dataclass_data import from_data
    from deepfm_jax.distributed.partitioning import Partitioning
    from deepfm_jax.embedding import ROW_OPTIMIZERS
    from experiments.benchmarks.tpu_programs import PROGRAMS, Settings, figures, slice_devices

    for flag, choices in ((_PROGRAM, PROGRAMS), (_ROW_OPTIMIZER, ROW_OPTIMIZERS)):
        if flag.value not in choices:
            raise UserError(f"--{flag.name}={flag.value} is unknown; use one of {list(choices)}")
    layout = {"replicas": _REPLICAS.value, "exchange_dtype": _EXCHANGE_DTYPE.value}
    partitioning = from_data(Partitioning, layout, "partitioning")
    out = pathlib.Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    jobs = [(name, _rows(text)) for name in _TOPOLOGIES.value for text in _ROWS.value]
    compiled = []
    for name, rows in tqdm(jobs, unit="program"):
        devices = slice_devices(name)
        settings = Settings(
            rows, _EMBED_DIM.value, _BATCH.value, _ROW_OPTIMIZER.value, partitioning
        )
        try:
            found = figures(_PROGRAM.value, devices, settings)
        except UserError as error:
            raise UserError(f"{name}, {rows:,} rows: {error}") from None
        compiled.append({"topology": name, "chips": len(devices), "rows": rows, **found})
        tqdm.write(_listing(compiled[-1]))
        config = {"program": _PROGRAM.value, **dataclasses.asdict(settings)}
        config.pop("rows")
        results = {"config": config, "jax": jax.__version__, "figures": compiled}
        write_json(out / "results.json", results)
    table = _table(compiled)
    write_atomically(out / "table.md", f"{table}\n\n{_ONCE}\n".encode())
    print(f"\n{table}\n\n{_ONCE}\nresults.json and table.md are in {out}")


def _rows(text: str) -> int:
    from experiments.benchmarks.workload import field_rows

    try:
        rows = int(float(text))
        field_rows(rows)
    except (OverflowError, ValueError) as error:
        raise UserError(f"--rows={text}: {error}") from None
    return rows


def _listing(figure: Mapping[str, Any]) -> str:
    """Formats a program's collectives, one per line."""
    lines = [f"\n{figure['topology']}, {figure['rows']:,} rows: bytes per device"]
    for collective in figure["collectives"]:
        where = f"once per round, in {collective['computation']}" if collective["loops"] else "once"
        lines.append(
            f"{collective['bytes']:12,}  {collective['kind']:18} "
            f"{', '.join(collective['results'])}  among {collective['group']}; {where}"
        )
    copied = sum(figure["copied_table_bytes"].values())
    lines.append(f"{copied:12,}  copied from the table's arrays, to and from on-chip memory")
    return "\n".join(lines)


def _table(figures: list[dict[str, Any]]) -> str:
    """Formats the figures as a Markdown table."""
    rows = [[*_COLUMNS], ["---"] * len(_COLUMNS)]
    rows += [[cell(figure) for cell in _COLUMNS.values()] for figure in figures]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


if __name__ == "__main__":
    launcher.run(main)
