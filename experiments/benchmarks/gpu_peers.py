"""Times PyTorch's DeepFM on the device: ``python gpu_peers.py``, in its own folder.

A part of ``gpu_session``, for any Python that has torch; of this project it needs only the modules
in this folder. The systems are those of ``torch_peers.py``: the model under ``torch.compile`` and
plain, with fused Adam, and with sparse gradients and SparseAdam. Prints a line of JSON for each.
"""
# pyright: reportMissingImports=false

import argparse
import functools
import itertools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from workload import batches, field_rows

try:
    import torch
    from torch_models import Run, Times, torch_adam, torch_compile, torch_sparse_adam
except ModuleNotFoundError as error:
    print(json.dumps({"part": "skipped", "name": "peers", "reason": str(error)}))
    sys.exit()

_SYSTEMS = {
    "torch_adam": torch_adam,
    "torch_sparse_adam": torch_sparse_adam,
    "torch_compile": torch_compile,
}
# PyTorch's name for the precision of float32 products; bfloat16 uses autocast.
_PRECISIONS = {"bfloat16": "highest", "float32": "highest", "tf32": "high"}
_BATCHES = 4


class _Session(Run):
    """A run that dispatches steps ahead, as ours do: the host waits only after each round."""

    seconds = 0.4

    def measure(self, step: Callable[[int], None]) -> Times:
        """Seconds per step in each round through the batches, without the first two rounds."""
        times: list[float] = []
        while len(times) < 5 or sum(times[2:]) < self.seconds:
            start = self.clock()
            for i in range(len(self.ids)):
                step(i)
            times.append(self.clock() - start)
        return {"step_seconds": [each / len(self.ids) for each in times[2:]]}


def main() -> None:
    """Times all systems, the largest batch first, until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="+", type=int, required=True, help="rows of the tables")
    parser.add_argument("--batches", nargs="+", type=int, required=True, help="batch sizes")
    parser.add_argument("--seconds", default=480.0, type=float, help="time for this part")
    parser.add_argument("--small", action="store_true", help="without torch.compile")
    flags = parser.parse_args()
    end = time.monotonic() + flags.seconds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    systems = [name for name in _SYSTEMS if not (flags.small and name == "torch_compile")]
    data_of = functools.cache(functools.partial(batches, count=_BATCHES))
    # Systems that take long to compile come last, one precision after another: a session that is
    # cut off has every table of the largest batch.
    for batch, name, precision, rows in itertools.product(
        flags.batches, systems, _PRECISIONS, flags.rows
    ):
        if time.monotonic() > end:
            reason = f"the time was up before {name} in {precision} of {rows} x {batch}"
            _emit(part="skipped", reason=reason)
            return
        data = data_of(rows, batch=batch)
        record = _measured(_SYSTEMS[name], precision, rows, data, device)
        _emit(part="speed", system=name, rows=rows, batch=batch, precision=precision, **record)


def _measured(system, precision, rows, data, device) -> dict[str, Any]:
    """Milliseconds of a step, or the reason why they are missing."""
    ids, labels = data
    torch.set_float32_matmul_precision(_PRECISIONS[precision])
    run = _Session(
        field_rows=field_rows(rows),
        ids=ids,
        labels=labels,
        warmup=0,
        device=device,
        bfloat16=precision == "bfloat16",
    )
    try:
        # Tables are created on the device, because drawing a large one on the host takes long.
        with torch.device(device):
            measure = system(run)
        seconds = measure()["step_seconds"]
    except RuntimeError as error:  # Usually out of memory; others may fit.
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"[:200]}
    finally:
        measure = None
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return {
        "milliseconds": 1e3 * sorted(seconds)[len(seconds) // 2],
        "least_milliseconds": 1e3 * min(seconds),
        "torch": torch.__version__,
    }


def _emit(**record: Any) -> None:
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    sys.exit(main())
