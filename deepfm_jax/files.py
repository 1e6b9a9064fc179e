"""Writing files whole or not at all."""

import errno
import json
import os
import pathlib
from typing import Any


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
