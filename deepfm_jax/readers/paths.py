"""Where raw files are: on a disk, or behind any URL that fsspec knows, read as a stream.

``memory://``, ``gs://bucket/...``, ``s3://...``, ``hf://...`` and so on; each kind but the first
needs its driver (``gcsfs``, ``s3fs``, ``huggingface_hub``), whose credentials are its own affair.
``file://`` is the disk.
"""

import contextlib
import dataclasses
import fnmatch
import glob
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import fsspec
import pyarrow as pa
from fsspec.registry import known_implementations

from deepfm_jax.errors import UserError, one_line

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_CODECS = {".gz": "gzip", ".zst": "zstd"}


@dataclasses.dataclass(frozen=True)
class RemotePath:
    """A file or folder behind a URL, with the part of ``pathlib.Path`` that reading needs.

    Attributes:
      url: With its scheme, as ``gs://bucket/logs/train.csv``.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The last extension of the name, with its dot."""
        return pathlib.PurePosixPath(self.name).suffix

    def exists(self) -> bool:
        """Whether something is there."""
        return self._about() is not None

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return (self._about() or {}).get("type") == "directory"

    def is_file(self) -> bool:
        """Whether it is a file."""
        return (self._about() or {}).get("type") == "file"

    def stored_bytes(self) -> int:
        """Bytes of the file as it is stored; 0 where that is not told."""
        return (self._about() or {}).get("size") or 0

    def glob(self, pattern: str) -> list["RemotePath"]:
        """The files of this folder whose names match a pattern, sorted; none where it is none."""
        with _failures_told(self.url):
            system, folder = _system(self.url)
            try:
                found = system.ls(folder, detail=True)  # Drivers remember a listing.
            except (FileNotFoundError, NotADirectoryError):
                return []
        files = (each["name"].rpartition("/")[2] for each in found if each["type"] == "file")
        return [self / name for name in sorted(files) if fnmatch.fnmatchcase(name, pattern)]

    def matches(self) -> list["RemotePath"]:
        """The files that match the URL as a pattern, sorted."""
        with _failures_told(self.url):
            system, pattern = _system(self.url)
            if not glob.has_magic(pattern):
                return []
            found: Any = system.glob(pattern, detail=True)  # A dict, with details.
            files = [name for name, about in found.items() if about["type"] == "file"]
            # The host of a URL is no part of the file system's own names.
            before = self.url.removesuffix(pattern)
            if before == self.url:
                return [RemotePath(system.unstrip_protocol(name)) for name in sorted(files)]
            return [RemotePath(before + name) for name in sorted(files)]

    def open(self) -> pa.NativeFile:
        """The bytes as they are stored, fetched as they are read.

        Raises:
          UserError: no such file, no driver for it, or the driver cannot open it.
        """
        with _failures_told(self.url):
            system, name = _system(self.url)
            return pa.PythonFile(_DriverFile(system.open(name, "rb")), mode="r")

    def _about(self) -> dict[str, Any] | None:
        with _failures_told(self.url):
            system, name = _system(self.url)
            try:
                return system.info(name)
            except FileNotFoundError:
                return None


SourcePath: TypeAlias = pathlib.Path | RemotePath


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL, ``file://`` included."""
    return _URL.match(os.fspath(path)) is not None


def source_path(path: str | os.PathLike[str]) -> SourcePath:
    """The path of a file, a folder or a pattern, on the disk or behind a URL."""
    if isinstance(path, RemotePath):
        return path
    text = os.fspath(path)
    if not is_url(text):
        return pathlib.Path(path)
    if text.startswith("file://"):
        return pathlib.Path(_system(text)[1])
    return RemotePath(text)


def extension(path: str | os.PathLike[str]) -> str:
    """What a file holds, by its name: ``.csv`` of ``a.csv`` and of ``a.csv.gz``."""
    name = pathlib.PurePosixPath(os.fspath(path))
    return pathlib.PurePosixPath(name.stem).suffix if name.suffix in _CODECS else name.suffix


def absolute(path: str | os.PathLike[str]) -> str:
    """The path from the root; a URL is one."""
    place = source_path(path)
    return place.url if isinstance(place, RemotePath) else os.path.abspath(place)


def find_files(path: str | os.PathLike[str]) -> list[SourcePath]:
    """The files that a path or a pattern (``train-*.csv.gz``) names, sorted by name.

    Raises:
      UserError: there is none, or it cannot be reached.
    """
    place = source_path(path)
    files: list[SourcePath]
    if isinstance(place, RemotePath):
        files = [place] if place.exists() else [*place.matches()]
    elif os.path.lexists(place):
        files = [place]
    else:
        found = map(pathlib.Path, glob.glob(os.fspath(place), recursive=True))
        # A link to nowhere stays, for its rows would be missed without a word.
        files = [file for file in sorted(found) if not file.is_dir()]
    if not files:
        matches = glob.has_magic(os.fspath(path))
        raise UserError(f"{path}: no file matches" if matches else f"{path}: no such file")
    if files[0].is_dir():
        raise UserError(f"{path}: a folder, not a file")
    return files


def stored_bytes(path: SourcePath) -> int:
    """Bytes of a file as it is stored; 0 where that is not told."""
    return path.stat().st_size if isinstance(path, pathlib.Path) else path.stored_bytes()


def open_text(path: SourcePath) -> pa.NativeFile:
    """A stream of a file's bytes, decompressed where its name ends by ``.gz`` or ``.zst``."""
    if isinstance(path, pathlib.Path):
        return pa.input_stream(os.fspath(path), compression="detect")
    return pa.input_stream(path.open(), compression=_CODECS.get(path.suffix))


def open_random(path: SourcePath) -> pa.NativeFile:
    """A file's bytes as they are stored, at any position."""
    return pa.OSFile(os.fspath(path)) if isinstance(path, pathlib.Path) else path.open()


class _DriverFile:
    """A driver's open file, whose failures are OSErrors, as those of a disk are."""

    def __init__(self, file: Any):
        self._file = file

    @property
    def closed(self) -> bool:
        return self._file.closed

    def read(self, count: int = -1) -> bytes:
        with self._failures_are_of_reading():
            return self._file.read(count)

    def seek(self, position: int, whence: int = 0) -> int:
        with self._failures_are_of_reading():
            return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    @contextlib.contextmanager
    def _failures_are_of_reading(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        # Each driver has errors of its own, for a lost connection and the like.
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {one_line(error)}") from error


def _system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL, and the name that it has there.

    Raises:
      UserError: an unknown scheme, or its driver is not installed.
    """
    scheme = url.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        driver = known_implementations[scheme]["class"].partition(".")[0]
        remedy = "" if driver == "fsspec" else f" (pip install {driver})"
        raise UserError(f"{url}: {one_line(error)}{remedy}") from None
    except ValueError as error:
        if scheme in fsspec.available_protocols():
            raise
        raise UserError(f"{url}: {one_line(error)}; use a path, gs://, s3:// or hf://") from None


@contextlib.contextmanager
def _failures_told(url: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{url}: no such file") from None
    # Each driver has errors of its own, for missing credentials, rights, buckets and so on.
    except Exception as error:
        raise UserError(
            f"{url}: cannot be reached ({type(error).__name__}: {one_line(error)})"
        ) from None
