"""Encodes raw files into a data set on disk, which is complete or absent."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds

from deepfm_jax.datasets import BUILDERS
from deepfm_jax.datasets.beam.engine import BeamEngine
from deepfm_jax.datasets.blocks import SplitSummary
from deepfm_jax.datasets.click_log import ClickLogBuilder
from deepfm_jax.datasets.options import OPTIONS_FILE, SOURCE_FILE, BuildOptions, origin
from deepfm_jax.datasets.selection import find_builder
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.encoding.extension import check_same_schema
from deepfm_jax.errors import UserError, one_line
from deepfm_jax.features import total_rows
from deepfm_jax.files import is_full_disk, only_writer
from deepfm_jax.readers.paths import is_url
from deepfm_jax.readers.rejects import REJECTS_FILE

# Name of a data set while another takes its place.
_REPLACED = "replaced"


def dataset_folder(name: str, out: str | os.PathLike[str]) -> pathlib.Path:
    """The folder of the data set ``name`` under ``out``.

    Raises:
      UserError: ``name`` is not in ``BUILDERS``, or ``out`` is a URL.
    """
    if is_url(out):
        raise UserError(f"{out}: prepared data sets are kept on disk; give the path of a folder")
    if name not in BUILDERS:
        raise UserError(f"data set {name!r} is unknown; use one of {sorted(BUILDERS)}")
    return pathlib.Path(out) / name / str(BUILDERS[name].VERSION)


def prepare(
    name: str,
    out: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    options: BuildOptions | None = None,
    overwrite: bool = False,
    beam: BeamEngine | None = None,
) -> dict[str, SplitSummary]:
    """Encodes the raw files of ``source`` into ``out``; an existing data set is reused.

    If another process is writing the data set, this one prints a message and waits.

    Args:
      name: Name of the data set, one of ``BUILDERS``.
      out: Folder of prepared data sets (TFDS ``data_dir``).
      source: Folder of raw files; not needed by ``synthetic``. For ``tabular`` and ``libsvm`` also
        a file or a pattern of files. Any of them may be a URL.
      options: Changes to the builder's encoding.
      overwrite: Whether to replace an existing data set.
      beam: Runs the work as Beam pipelines; the output is the same.

    Returns:
      The counts of each split.

    Raises:
      UserError: a file or row is bad (see ``sources.read_tables``), a split has one class, the
        source is missing, a cross is impossible, an existing data set was prepared with other
        options or from another source, or Beam is not installed.
    """
    options = options or BuildOptions()
    folder = dataset_folder(name, out)
    builder_class = find_builder(name, source)
    options = builder_class.complete(options, source)
    # Before options are compared, since the message of a difference would hide a misspelt column.
    builder_class.encoded_schema(options)
    if beam is not None:
        beam.make_runner()  # Raises before any work if Beam is not installed.
    if options.extend_from is not None:
        Encoder.load(options.extend_from)
        if folder.is_dir() and os.path.samefile(folder, options.extend_from):
            raise UserError(
                f"{folder} is the data set that would be replaced; extend the encoder of a workdir "
                "that was trained on it, or choose another --out"
            )
    if folder.is_dir() and not overwrite:
        summaries = _reused(folder, options, source)
        # Leftovers stay if the disk is read-only or another process is writing.
        with contextlib.suppress(OSError), only_writer(folder.parent, wait=False) as locked:
            if locked:
                _clear_up(name, folder)
        return summaries
    with _translate_write_errors(folder), only_writer(folder.parent) as locked:
        if locked:
            _clear_up(name, folder)
        # Another process may have written it meanwhile, or left it when it was killed.
        if folder.is_dir() and not overwrite:
            return _reused(folder, options, source)
        # The builder is made this late because its constructor reads an existing data set.
        if not folder.is_dir():
            _build(
                builder_class(options=options, source=source, beam=beam, data_dir=os.fspath(out)),
                beam,
            )
            return split_summaries(folder)
        # The old data set stays until the new one is complete.
        with tempfile.TemporaryDirectory(dir=out, prefix=_staging_prefix(name)) as staging:
            _build(builder_class(options=options, source=source, beam=beam, data_dir=staging), beam)
            old = pathlib.Path(staging) / _REPLACED
            try:
                os.replace(folder, old)
                os.replace(dataset_folder(name, staging), folder)
            except BaseException:  # Even a signal must not lose both.
                if not folder.exists():
                    os.replace(old, folder)
                raise
        return split_summaries(folder)


def _reused(folder: pathlib.Path, options: BuildOptions, source) -> dict[str, SplitSummary]:
    if not (folder / OPTIONS_FILE).is_file():
        raise UserError(
            f"{folder}: not a data set written by prepare ({OPTIONS_FILE} is missing); choose "
            "another --out, or pass --overwrite"
        )
    _check_same(folder, options, source)
    return split_summaries(folder)


def _clear_up(name: str, folder: pathlib.Path) -> None:
    """Removes what killed processes left behind while writing this data set.

    A process that was killed while it replaced the data set has left the old one, which is restored
    if there is no new one.
    """
    left = [path for path in folder.parents[1].iterdir() if _is_staging(path, name)]
    for path in left:
        if (path / _REPLACED).is_dir() and not folder.exists():
            os.replace(path / _REPLACED, folder)
    # The name that TFDS uses, with six random letters or digits.
    for path in [*folder.parent.glob(f"incomplete.??????_{folder.name}"), *left]:
        shutil.rmtree(path, ignore_errors=True)


def _staging_prefix(name: str) -> str:
    return f".{name}.prepare-"


def _is_staging(path: pathlib.Path, name: str) -> bool:
    """Whether a folder beside a data set is one in which ``prepare`` builds its replacement."""
    if path.is_symlink() or not path.is_dir():
        return False
    if path.name.startswith(_staging_prefix(name)):
        return True
    # Older versions used no distinct name, so the content must show that it is theirs.
    if not re.fullmatch(rf"\.{name}\.[a-z0-9_]{{8}}", path.name):
        return False
    found = {each.name for each in path.iterdir()}
    if not found or not found <= {name, _REPLACED}:
        return False
    # A complete data set on its own may be a user's copy.
    return _REPLACED in found or all(
        each.name.startswith("incomplete.") for each in (path / name).iterdir()
    )


def _check_same(folder: pathlib.Path, options: BuildOptions, source) -> None:
    """Raises UserError unless the existing data set has these options and this source."""
    written = json.loads((folder / OPTIONS_FILE).read_text())
    known = {field.name for field in dataclasses.fields(BuildOptions)}
    unknown = sorted(set(written) - known)
    if unknown:
        raise UserError(
            f"{folder / OPTIONS_FILE} has option {unknown[0]!r}, which this version does not know: "
            "a newer version wrote it; update, choose another --out, or pass --overwrite"
        )
    # An option that was added after the data set was written had its default.
    there = BuildOptions(**written)
    old, new = dataclasses.asdict(there), dataclasses.asdict(options)
    if (folder / SOURCE_FILE).is_file():
        old |= json.loads((folder / SOURCE_FILE).read_text())
        new |= origin(options, source)
    for key, value in new.items():
        if key in old and old[key] != value:
            # A schema is too long for a message.
            is_long = key == "schema"
            difference = "another schema" if is_long else f"{key}={old[key]}, not {key}={value}"
            raise UserError(
                f"{folder} was prepared with {difference}; choose another --out, or pass "
                "--overwrite"
            )


def _build(builder: ClickLogBuilder, beam: BeamEngine | None) -> None:
    if builder.options.extend_from is not None:
        # Before anything is read; the schema of a builder may depend on its source.
        check_same_schema(Encoder.load(builder.options.extend_from), builder.schema)
    # TFDS announces a download that does not happen and counts blocks; our bar counts rows.
    tfds.disable_progress_bar()
    with (
        _translate_write_errors(builder.data_dir),
        contextlib.redirect_stdout(io.StringIO()),
        tempfile.TemporaryDirectory() as downloads,  # TFDS creates it even if it is not used.
    ):
        builder.download_and_prepare(
            download_dir=downloads,
            download_config=_download_config(beam),
            file_format="array_record",
        )


def _download_config(beam: BeamEngine | None) -> tfds.download.DownloadConfig:
    settings: dict[str, Any] = {
        "compute_stats": tfds.download.ComputeStatsMode.SKIP,
        "try_download_gcs": False,
    }
    if beam is None:
        return tfds.download.DownloadConfig(**settings)
    # Imported here because Beam is an optional dependency.
    from deepfm_jax.datasets.beam.blocks import SameShardsConfig

    settings |= {"beam_runner": beam.make_runner(), "beam_options": beam.make_options()}
    return SameShardsConfig(**settings)


@contextlib.contextmanager
def _translate_write_errors(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Raises UserError in place of errors of a full disk or an unwritable folder."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if is_full_disk(error):
            raise UserError(
                f"{folder}: no space left on the disk; nothing was kept there, so free some space "
                "and try again"
            ) from None
        if isinstance(error, OSError):
            raise UserError(f"{folder}: cannot be written ({one_line(error)})") from None
        raise


def split_summaries(folder: pathlib.Path) -> dict[str, SplitSummary]:
    """The counts that ``prepare`` wrote beside the blocks."""
    return {
        split: SplitSummary(**json.loads((folder / f"rows_{split}.json").read_text()))
        for split in ("train", "valid", "test")
    }


def describe(
    summaries: Mapping[str, SplitSummary], encoder: Encoder, folder: pathlib.Path | None = None
) -> str:
    """Describes a data set: rows of each split, positive rates, vocabulary sizes, crosses.

    With ``folder``, the folder of the data set, it also says where the rejected rows are.
    """
    lines = [f"{'split':8}{'read':>12}{'kept':>12}{'rejected':>10}{'positive rate':>15}"]
    for split, summary in summaries.items():
        rates = summary.positive_rates
        # Data sets of old versions have only the positives of the first label.
        rate = next(iter(rates.values()), summary.positives / summary.rows)
        lines.append(
            f"{split:8}{summary.read:12,}{summary.rows:12,}{summary.rejected:10,}{rate:15.4f}"
        )
        if len(rates) > 1:
            each = ", ".join(f"{label} {rate:.4f}" for label, rate in rates.items())
            lines.append(f"  positive rates: {each}")
        if summary.missing_of:
            each = ", ".join(f"{label} in {n:,} rows" for label, n in summary.missing_of.items())
            lines.append(f"  missing labels: {each}")
        lines.extend(f"  rejected: {message}" for message in summary.first_errors)
        lines.extend(_longer(summary, encoder))
    if folder is not None and (folder / REJECTS_FILE).is_file():
        lines.append(f"all rejected rows are in {folder / REJECTS_FILE}")
    lines.append("ids of each field: " + ", ".join(_sizes(encoder)))
    count = f"{len(encoder.coders)} fields"
    crosses = encoder.schema.crosses
    if crosses:
        buckets = ", ".join(f"{cross.name} {cross.buckets:,}" for cross in crosses)
        lines.append(f"buckets of each cross: {buckets}")
        count += f" and {len(crosses)} cross" + ("es" if len(crosses) > 1 else "")
    lines.append(f"{count}, {total_rows(encoder.features):,} table rows in all")
    return "\n".join(lines)


def _longer(summary: SplitSummary, encoder: Encoder) -> Iterator[str]:
    """By column, the number of rows with more values than slots."""
    for field in encoder.schema.fields:
        longer = summary.longer.get(field.name, 0)
        if longer:
            kept = "last" if field.keeps_last else "first"
            yield (
                f"  {field.name}: {longer:,} rows have more than max_length={field.slots} "
                f"values; the {kept} ones are kept"
            )


def _sizes(encoder: Encoder) -> Iterator[str]:
    """The name of each field and its number of ids."""
    for field, coder in zip(encoder.schema.fields, encoder.coders, strict=True):
        if field.numbers:
            yield f"{field.name} {field.numbers} numbers"
            continue
        ids = f"shared with {coder.field.name}" if coder.field != field else f"{coder.dim:,}"
        slots = f" in {field.slots} slots" if field.slots > 1 else ""
        yield f"{field.name} {ids}{slots}"
