"""Checks and benchmarks a GPU in one session: ``python -m experiments.benchmarks.gpu_session``.

Run it in a clone, in any environment with JAX for the GPU, flax, optax, orbax-checkpoint, chex,
numpy, scipy, scikit-learn, pyarrow, matplotlib, jaxtyping and pytest; PyTorch, if installed, is
the peer. It takes at most 8 minutes (``--seconds``) and has four parts, each in its own process:

    checks   the device's results against float64, PyTorch and the CPU (``gpu_checks``)
    speed    training steps by table, batch, optimizer and precision (``gpu_speed``)
    peers    the same steps in PyTorch (``gpu_peers``)
    profile  kernels, memory, copies and scoring (``gpu_profile``)

Every result is in ``results.json`` as soon as it is known, so a session that is cut off keeps its
results; ``report.txt`` and ``speed.png`` are made from them at the end, or afterwards by
``--report_only``. ``--small`` runs the whole session on a CPU. Exits with status 1 if a check or a
part failed.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from experiments.benchmarks import gpu_report

_HERE = pathlib.Path(__file__).parent
_ROOT = _HERE.parents[1]
# The share of the time that each part may take; unused time goes to the later parts.
_SHARES = {"checks": 0.3, "speed": 0.36, "peers": 0.2, "profile": 0.14}
# Seconds that a part has to end on its own before it is stopped.
_GRACE = 10.0


def main() -> int:
    """Runs the parts and writes the files; returns the exit status."""
    flags = _flags()
    out = pathlib.Path(flags.out)
    out.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    if flags.report_only:
        records = json.loads((out / "results.json").read_text())
    else:
        # A session that is ended from outside still writes its report.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if not flags.report_only:
            _run_parts(flags, out, records)
    finally:
        text = gpu_report.text(records)
        print(text)
        (out / "report.txt").write_text(text + "\n")
        gpu_report.plot(records).savefig(out / "speed.png", dpi=150)
        print(f"results.json, report.txt and speed.png are in {out}")
    return 1 if any(map(_is_failure, records)) else 0


def _is_failure(record: dict[str, Any]) -> bool:
    """Whether a check did not pass, or a part ended with an error and not by its time limit."""
    return record.get("passed") is False or record["part"] == "failed"


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="runs/gpu_session", help="folder of results")
    parser.add_argument("--seconds", default=470.0, type=float, help="time for all parts")
    parser.add_argument("--parts", nargs="+", choices=_SHARES, default=list(_SHARES))
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument(
        "--peer_python", default=sys.executable, help="Python that has torch; by default this one"
    )
    parser.add_argument("--report_only", action="store_true", help="read results.json of --out")
    return parser.parse_args()


def _run_parts(flags: argparse.Namespace, out: pathlib.Path, records: list[dict]) -> None:
    start = time.monotonic()
    shares = sum(_SHARES[part] for part in flags.parts)
    passed = 0.0
    for part in flags.parts:
        passed += _SHARES[part] / shares
        seconds = start + passed * flags.seconds - time.monotonic()
        _run_part(part, max(1.0, seconds - _GRACE), flags, out, records)


def _command(part: str, seconds: float, flags: argparse.Namespace) -> list[str]:
    small = ["--small"] if flags.small else []
    common = [f"--seconds={seconds:.0f}", *small]
    if part != "peers":
        return [sys.executable, "-m", f"experiments.benchmarks.gpu_{part}", *common]
    from experiments.benchmarks.gpu_sizes import FULL, SMALL

    sizes = SMALL if flags.small else FULL
    rows, batches = map(str, sizes.rows), map(str, sizes.batches)
    peers = os.path.abspath(flags.peer_python)
    return [peers, "gpu_peers.py", "--rows", *rows, "--batches", *batches, *common]


def _run_part(part: str, seconds: float, flags, out: pathlib.Path, records: list[dict]) -> None:
    """Runs a part to its end or until its time is up, and stores its results as they come."""
    print(f"{part}: up to {seconds:.0f} s", flush=True)
    begun = time.monotonic()
    with (out / f"{part}.log").open("w") as log:
        process = subprocess.Popen(
            _command(part, seconds, flags),
            cwd=_HERE if part == "peers" else _ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        end = threading.Timer(seconds + _GRACE, process.kill)
        end.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                _keep(line, out, records)
            status = process.wait()
        finally:
            end.cancel()
            process.kill()
    took = time.monotonic() - begun
    if status:
        lines = (out / f"{part}.log").read_text().strip().splitlines() or ["no message"]
        ended = ("cut", "the time was up") if took >= seconds + _GRACE else ("failed", lines[-1])
        record = {"part": ended[0], "name": part, "reason": ended[1][:300]}
        _keep(json.dumps(record), out, records)
    print(f"{part}: {took:.0f} s", flush=True)


def _keep(line: str, out: pathlib.Path, records: list[dict[str, Any]]) -> None:
    """Adds a result to the session's and writes them all."""
    try:
        record = json.loads(line)
    except ValueError:
        return  # A line that a library printed.
    records.append(record)
    written = out / "results.json.new"
    written.write_text(json.dumps(records, indent=1))
    written.replace(out / "results.json")
    print(f"  {gpu_report.line(record)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
