"""Writing files whole or not at all."""

import contextlib
import errno
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from deepfm_jax.errors import UserError

try:
    import fcntl
except ImportError:  # No such locks on Windows.
    fcntl = None


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a temporary name beside ``path``, then renames it over ``path``."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes ``content`` as indented JSON, atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


# How often a folder is made again that other processes remove.
_ATTEMPTS = 100

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def is_full_disk(error: BaseException) -> bool:
    """Whether the disk, or a quota of it, is full.

    The writers of other libraries raise errors of their own, with the system's words in them.
    """
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    return any(os.strerror(number) in str(error) for number in _NO_SPACE)


@contextlib.contextmanager
def only_writer(folder: pathlib.Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds a folder for this process; gives whether it is known that no other writes there.

    It is made where it is not there, with those above it, and what was made is gone again where it
    is left empty. The lock is the system's, and ends with the process, however that ends. Some
    network disks have none.

    Args:
      folder: It.
      wait: Whether to wait, and say so, while another process holds it; else it is not known.
    """
    made: list[pathlib.Path] = []
    for _ in range(_ATTEMPTS):
        missing = (path for path in (folder, *folder.parents) if path in made or not path.exists())
        made = [*missing]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = _locked(folder, wait=wait)
            break
        except FileNotFoundError:  # Another process has found it empty, and removed it.
            continue
    else:
        raise UserError(f"{folder}: is removed whenever it has been made; choose another --out")
    try:
        yield handle is not None
    finally:
        # While it is held still: who comes after that has to make it anew.
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()
        if handle is not None:
            os.close(handle)


def _locked(folder: pathlib.Path, *, wait: bool) -> int | None:
    """A handle that holds the folder until it is closed; None where none is to be had.

    Raises:
      FileNotFoundError: the folder was removed before it was held.
    """
    if fcntl is None:  # A folder cannot be opened there either.
        return None
    with contextlib.ExitStack() as opened:
        handle = os.open(folder, os.O_RDONLY)
        opened.callback(os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                return None
            print(f"{folder}: another process is writing there; waiting for it", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            return None
        # What is held may not be what lies there now.
        if not os.path.samestat(os.fstat(handle), os.stat(folder)):
            raise FileNotFoundError(folder)
        opened.pop_all()
        return handle
