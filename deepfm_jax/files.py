"""Writing files whole or not at all."""

import contextlib
import errno
import json
import os
import pathlib
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


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def is_full_disk(error: BaseException) -> bool:
    """Whether the disk, or a quota of it, is full.

    The writers of other libraries raise errors of their own, with the system's words in them.
    """
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    return any(os.strerror(number) in str(error) for number in _NO_SPACE)


@contextlib.contextmanager
def only_writer(folder: pathlib.Path) -> Iterator[bool]:
    """Holds a folder for this process; gives whether it is known that no other writes there.

    It is made where it is not there, with those above it, and what was made is gone again where it
    is left empty. The lock is the system's, and ends with the process, however that ends. Some
    network disks have none.

    Raises:
      UserError: another process holds it.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _locked(handle, folder)
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def _locked(handle: int, folder: pathlib.Path) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{folder}: another process is writing there; wait for its end, or choose another --out"
        ) from None
    except OSError:
        return False
    return True
