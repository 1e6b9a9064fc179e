"""The encoding task of input_pipeline.py, which is the same for all systems, and its timing.

Needs only the standard library, so that both our environment and the peers' can import it.

A folder holds ``train``, ``valid`` and ``test`` in Criteo's layout: a label, 13 counts and 26
hashed categories, separated by tabs, empty if missing. Each column becomes int32 ids:

* a count x becomes the bucket floor(ln(x)^2) if x > 2, else floor(x), which is then a category;
* the values of a category that occur in at least ``MIN_COUNT`` training rows are numbered from 1,
  the most frequent first, ties broken by the smaller value; all other values are 0.

Each system writes the ids and labels of all three files in a format of its own.
"""

import argparse
import contextlib
import pathlib
import sys
import time
from collections.abc import Callable

LABEL = "label"
COUNTS = [f"I{i}" for i in range(1, 14)]
CATEGORIES = [f"C{i}" for i in range(1, 27)]
COLUMNS = [LABEL, *COUNTS, *CATEGORIES]
FILES = ("train", "valid", "test")
MIN_COUNT = 2


def run(
    system: str, encode: Callable[[pathlib.Path, pathlib.Path], dict[str, object] | None]
) -> None:
    """Times ``encode(source, out)`` and reports it; imports are not timed.

    Flags: ``--source``, the folder of the three files, and ``--out``, an empty one. What ``encode``
    returns is added to the report, and what it prints goes to stderr.
    """
    # Imported here because it has this name only when a script of this folder runs.
    from workload import report

    parser = argparse.ArgumentParser(description=f"Encodes a click log with {system}.")
    parser.add_argument("--source", required=True, type=pathlib.Path, help="folder of the files")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder of the results")
    flags = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):
        start = time.perf_counter()
        extra = encode(flags.source, flags.out) or {}
        seconds = time.perf_counter() - start
    report([seconds], system=system, **extra)
