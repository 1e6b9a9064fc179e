"""Peak memory of a process and its descendants together (Linux)."""

import os
import pathlib
import threading

_PERIOD = 0.2  # seconds
_PROC = pathlib.Path("/proc")


class PeakMemory:
    """Context manager that measures the peak memory between entry and exit: ``peak``, in bytes.

    A page shared by several processes is counted once (the kernel's "proportional set size").
    """

    def __init__(self):
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, sum(map(_bytes_of, _family(os.getpid()))))
            if self._ended.wait(_PERIOD):
                return


def _family(root: int) -> set[int]:
    """A process and all its descendants."""
    parents = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            # "pid (name) state parent ...", where the name may contain any character.
            stat = _read(folder / "stat").rpartition(")")[2].split()
            parents[int(folder.name)] = int(stat[1]) if stat else 0
    found: set[int] = set()
    added = {root}
    while added:
        found |= added
        added = {child for child, parent in parents.items() if parent in added} - found
    return found


def _bytes_of(process: int) -> int:
    for line in _read(_PROC / str(process) / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: pathlib.Path) -> str:
    """The file's text; empty if its process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""
