"""Paths of raw files, which are on disk or behind any URL that fsspec supports.

Examples are ``memory://``, ``gs://bucket/...``, ``s3://...`` and ``hf://...``; ``file://`` is the
local disk. All but ``memory://`` and ``file://`` need a driver (``gcsfs``, ``s3fs``,
``huggingface_hub``), which finds its own credentials. Files are read as streams.
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
      url: The URL with its scheme, such as ``gs://bucket/logs/train.csv``.
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
        """Whether a file or folder exists at the URL."""
        return self._about() is not None

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return (self._about() or {}).get("type") == "directory"

    def is_file(self) -> bool:
        """Whether it is a file."""
        return (self._about() or {}).get("type") == "file"

    def stored_bytes(self) -> int:
        """Size of the file as stored, in bytes; 0 if the driver does not report it."""
        return (self._about() or {}).get("size") or 0

    def glob(self, pattern: str) -> list["RemotePath"]:
        """The files of this folder that match a pattern, sorted; empty if it is not a folder."""
        with _translate_errors(self.url):
            system, folder = _system(self.url)
            try:
                found = system.ls(folder, detail=True)  # Drivers cache listings.
            except (FileNotFoundError, NotADirectoryError):
                return []
        files = (each["name"].rpartition("/")[2] for each in found if each["type"] == "file")
        return [self / name for name in sorted(files) if fnmatch.fnmatchcase(name, pattern)]

    def matches(self) -> list["RemotePath"]:
        """The files that match the URL as a pattern, sorted."""
        with _translate_errors(self.url):
            system, pattern = _system(self.url)
            if not glob.has_magic(pattern):
                return []
            found: Any = system.glob(pattern, detail=True)  # A dict, with details.
            files = [name for name, about in found.items() if about["type"] == "file"]
            # The file system's own names do not include the host of the URL.
            before = self.url.removesuffix(pattern)
            if before == self.url:
                return [RemotePath(system.unstrip_protocol(name)) for name in sorted(files)]
            return [RemotePath(before + name) for name in sorted(files)]

    def open(self) -> pa.NativeFile:
        """Opens the stored bytes as a stream, which fetches them as they are read.

        Raises:
          UserError: the file does not exist, its driver is missing, or the driver cannot open it.
        """
        with _translate_errors(self.url):
            system, name = _system(self.url)
            return pa.PythonFile(_DriverFile(system.open(name, "rb")), mode="r")

    def _about(self) -> dict[str, Any] | None:
        with _translate_errors(self.url):
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
    """The path of a file, a folder or a pattern, on disk or behind a URL."""
    if isinstance(path, RemotePath):
        return path
    text = os.fspath(path)
    if not is_url(text):
        return pathlib.Path(path)
    if text.startswith("file://"):
        return pathlib.Path(_system(text)[1])
    return RemotePath(text)


def extension(path: str | os.PathLike[str]) -> str:
    """The extension without compression: ``.csv`` for both ``a.csv`` and ``a.csv.gz``."""
    name = pathlib.PurePosixPath(os.fspath(path))
    return pathlib.PurePosixPath(name.stem).suffix if name.suffix in _CODECS else name.suffix


def absolute(path: str | os.PathLike[str]) -> str:
    """The absolute path; a URL is returned unchanged."""
    place = source_path(path)
    return place.url if isinstance(place, RemotePath) else os.path.abspath(place)


def find_files(path: str | os.PathLike[str]) -> list[SourcePath]:
    """The files that a path or a pattern (``train-*.csv.gz``) names, sorted by name.

    Raises:
      UserError: no file matches, the path is a folder, or the URL cannot be reached.
    """
    place = source_path(path)
    files: list[SourcePath]
    if isinstance(place, RemotePath):
        files = [place] if place.exists() else [*place.matches()]
    elif os.path.lexists(place):
        files = [place]
    else:
        found = map(pathlib.Path, glob.glob(os.fspath(place), recursive=True))
        # A broken link is kept, because dropping it would lose its rows silently.
        files = [file for file in sorted(found) if not file.is_dir()]
    if not files:
        matches = glob.has_magic(os.fspath(path))
        raise UserError(f"{path}: no file matches" if matches else f"{path}: no such file")
    if files[0].is_dir():
        raise UserError(f"{path}: a folder, not a file")
    return files


def stored_bytes(path: SourcePath) -> int:
    """Size of a file as stored, in bytes; 0 if its driver does not report it."""
    return path.stat().st_size if isinstance(path, pathlib.Path) else path.stored_bytes()


def open_text(path: SourcePath) -> pa.NativeFile:
    """A stream of a file's bytes, decompressed if its name ends in ``.gz`` or ``.zst``."""
    if isinstance(path, pathlib.Path):
        return pa.input_stream(os.fspath(path), compression="detect")
    return pa.input_stream(path.open(), compression=_CODECS.get(path.suffix))


def open_random(path: SourcePath) -> pa.NativeFile:
    """A file's stored bytes, with random access."""
    return pa.OSFile(os.fspath(path)) if isinstance(path, pathlib.Path) else path.open()


class _DriverFile:
    """A driver's open file, which raises OSError on failure, as files on disk do."""

    def __init__(self, file: Any):
        self._file = file

    @property
    def closed(self) -> bool:
        return self._file.closed

    def read(self, count: int = -1) -> bytes:
        with self._as_os_error():
            return self._file.read(count)

    def seek(self, position: int, whence: int = 0) -> int:
        with self._as_os_error():
            return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    @contextlib.contextmanager
    def _as_os_error(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        # Drivers raise their own exceptions for lost connections and the like.
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {one_line(error)}") from error


def _system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL, and its name in that file system.

    Raises:
      UserError: the scheme is unknown, or its driver is not installed.
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
def _translate_errors(url: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{url}: no such file") from None
    # Drivers raise their own exceptions for missing credentials, permissions, buckets and so on.
    except Exception as error:
        raise UserError(
            f"{url}: cannot be reached ({type(error).__name__}: {one_line(error)})"
        ) from None
