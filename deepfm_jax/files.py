"""Atomic writes of files, and locks of folders."""

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
except ImportError:  # Windows has no such locks.
    fcntl = None


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a temporary file beside ``path``, then renames it to ``path``."""
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


# How often to create a folder again that other processes remove.
_ATTEMPTS = 100

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def is_full_disk(error: BaseException) -> bool:
    """Whether an error means that the disk or a disk quota is full.

    The writers of other libraries raise their own errors, which quote the system's message.
    """
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    return any(os.strerror(number) in str(error) for number in _NO_SPACE)


@contextlib.contextmanager
def only_writer(folder: pathlib.Path, *, wait: bool = True) -> Iterator[bool]:
    """Locks a folder for this process; yields whether it is certain that no other writes there.

    A missing folder is created with its parents; created folders that are left empty are removed
    again. The operating system releases the lock when the process ends, however that happens. Some
    network disks do not support locks; it then yields False.

    Args:
      folder: The folder to lock.
      wait: Whether to print a message and wait while another process holds the lock, instead of
        yielding False.
    """
    made: list[pathlib.Path] = []
    for _ in range(_ATTEMPTS):
        missing = (path for path in (folder, *folder.parents) if path in made or not path.exists())
        made = [*missing]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = _locked(folder, wait=wait)
            break
        except FileNotFoundError:  # Another process found it empty and removed it.
            continue
    else:
        raise UserError(f"{folder}: is removed whenever it is created; choose another --out")
    try:
        yield handle is not None
    finally:
        # Before the lock is released: the next process then has to create the folder again.
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()
        if handle is not None:
            os.close(handle)


def _locked(folder: pathlib.Path, *, wait: bool) -> int | None:
    """A handle that locks the folder until it is closed; None if it cannot be locked.

    Raises:
      FileNotFoundError: the folder was removed before it was locked.
    """
    if fcntl is None:  # Folders cannot be opened there either.
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
        # The locked folder may have been removed or replaced meanwhile.
        if not os.path.samestat(os.fstat(handle), os.stat(folder)):
            raise FileNotFoundError(folder)
        opened.pop_all()
        return handle
