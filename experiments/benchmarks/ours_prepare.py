"""Encodes a click log with our prepare: ``python ours_prepare.py --source=DIR --out=DIR``.

The criteo builder with its defaults, which match encoding_task.py.
"""

import pathlib

import encoding_task as task

from experiments.launcher import keep_freed_memory


def main() -> None:
    """Imports, then encodes."""
    keep_freed_memory()

    from deepfm_jax.datasets.prepare import prepare

    def encode(source: pathlib.Path, out: pathlib.Path) -> dict[str, object]:
        summaries = prepare("criteo", out, source=source)
        return {"rows": sum(summary.rows for summary in summaries.values())}

    task.run("ours", encode)


if __name__ == "__main__":
    main()
