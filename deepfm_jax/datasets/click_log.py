"""The base of all builders of click logs: fits an encoder on train, encodes, writes blocks."""

import abc
import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import tensorflow_datasets as tfds
from tqdm import tqdm

from deepfm_jax.datasets.beam.engine import BeamEngine
from deepfm_jax.datasets.block_files import write_split
from deepfm_jax.datasets.blocks import Block, BlockTally, SplitTally, arrays_of, cut_blocks
from deepfm_jax.datasets.files import find_split, has_split
from deepfm_jax.datasets.options import OPTIONS_FILE, SOURCE_FILE, BuildOptions, origin
from deepfm_jax.datasets.splitting import (
    SHARES,
    Passes,
    ReadFiles,
    ReadSplit,
    split_by_draw,
    split_by_time,
)
from deepfm_jax.encoding.encoder import Encoder, fit
from deepfm_jax.encoding.extension import extend
from deepfm_jax.errors import UserError
from deepfm_jax.readers.paths import source_path
from deepfm_jax.readers.read_ahead import read_ahead
from deepfm_jax.readers.rejects import rejects_file
from deepfm_jax.readers.row_checker import RowReport
from deepfm_jax.readers.sources import Files
from deepfm_jax.schema import Schema


class ClickLogBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Encodes a click log into blocks of examples, with its encoder beside them.

    A subclass defines its ``SCHEMA`` and how to read its splits. Vocabularies are fitted only on
    ``train``. Builders are listed in ``BUILDERS`` and not registered with TFDS, whose own
    ``criteo`` is another data set.
    """

    VERSION = tfds.core.Version("1.0.0")
    SCHEMA: ClassVar[Schema]
    NEEDS_SOURCE: ClassVar[bool] = True
    SOURCE_MAY_BE_FILES: ClassVar[bool] = False

    def __init__(
        self,
        *,
        options: BuildOptions | None = None,
        source: str | os.PathLike[str] | None = None,
        beam: BeamEngine | None = None,
        **kwargs,
    ):
        """Builds from the raw files in the folder ``source`` (or from a file or pattern of files).

        With ``beam``, its workers read and encode the rows instead of this process.

        Raises:
          UserError: see ``encoded_schema``, and ``_schema_of_source`` of the data set.
        """
        self.options = self.complete(options or BuildOptions(), source)
        self.source = source_path(source) if source is not None else None
        self.schema = self._schema_of_source()
        self._passes = Passes()
        self._beam = beam
        self._beam_build = None
        super().__init__(**kwargs)

    @classmethod
    def complete(cls, options: BuildOptions, source: str | os.PathLike[str] | None) -> BuildOptions:
        """Completes the options with what only the raw files show; by default unchanged.

        Raises:
          UserError: the files cannot be read.
        """
        del source
        return options

    @classmethod
    def encoded_schema(cls, options: BuildOptions) -> Schema:
        """The schema of the data set with these options.

        Raises:
          UserError: the options do not fit the data set (see ``BuildOptions.apply``).
        """
        if options.schema is not None:
            raise UserError(f"data set {cls.name!r} has its own schema; use tabular to give one")
        return options.apply(cls.SCHEMA)

    def _schema_of_source(self) -> Schema:
        """The schema of the source; overridden if the columns depend on the source."""
        return self.encoded_schema(self.options)

    @abc.abstractmethod
    def read_splits(self) -> dict[str, ReadSplit]:
        """How to read each split of ``source``, including ``train``.

        Raises:
          UserError: files that the data set needs are missing.
        """

    def _files(self, path: Files) -> ReadFiles:
        """How to read all rows of one or several files."""
        return ReadFiles(path, self.schema, self.options.max_bad_rows)

    def _given(self, extensions: Sequence[str]) -> dict[str, ReadSplit]:
        """Splits in separate files: ``train``, ``valid`` and ``test``, one or several of each."""
        assert self.source is not None
        if self.options.time_column is not None:
            raise UserError(
                f"{self.source}: the rows are already split; time_column is for unsplit rows"
            )
        paths = {split: find_split(self.source, split, extensions) for split in SHARES}
        return {split: self._files(path) for split, path in paths.items()}

    def _given_or_drawn(self, extensions: Sequence[str]) -> dict[str, ReadSplit]:
        """Splits in separate files or, without a ``valid`` file, made from the ``train`` files."""
        assert self.source is not None
        if has_split(self.source, "valid", extensions):
            return self._given(extensions)
        return self._drawn(find_split(self.source, "train", extensions))

    def _drawn(self, path: str | os.PathLike[str]) -> dict[str, ReadSplit]:
        """Splits the rows of one source in three, by a draw or by ``options.time_column``."""
        read = self._files(path)
        if self.options.time_column is None:
            return split_by_draw(read)
        return split_by_time(read, self.schema, self.options.time_column, self._passes)

    def _extra_files(self) -> dict[str, Any]:
        """JSON files to keep beside the blocks, by name."""
        return {}

    def _info(self) -> tfds.core.DatasetInfo:
        slots = len(self.schema.slot_names)

        def block(width: int, dtype: Any) -> tfds.features.Tensor:
            return tfds.features.Tensor(
                shape=(None, width), dtype=dtype, encoding=tfds.features.Encoding.BYTES
            )

        tasks = len(self.schema.labels)
        features = {"ids": block(slots, np.int32), "labels": block(tasks, np.float32)}
        if self.schema.has_values:
            features["values"] = block(slots, np.float32)
        if self.schema.dense_size:
            features["dense"] = block(self.schema.dense_size, np.float32)
        if self.schema.weight is not None:
            features["weights"] = tfds.features.Tensor(
                shape=(None,), dtype=np.float32, encoding=tfds.features.Encoding.BYTES
            )
        if self.schema.group is not None:
            features["groups"] = block(2, np.int32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _generate_splits(self, dl_manager: tfds.download.DownloadManager, download_config: Any):
        if self._beam is not None:
            return super()._generate_splits(dl_manager, download_config)
        # TFDS's own writer would shuffle; see ``block_files``.
        infos = []
        for split, examples in self._split_generators(dl_manager).items():
            with contextlib.closing(read_ahead(examples)) as ahead:
                template = self._get_filename_template(split)
                infos.append(write_split(ahead, self.info.features, template))
        return infos

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # Nothing is downloaded.
        old = self.options.extend_from
        extended = None if old is None else Encoder.load(old)
        if self._beam is not None:
            # Imported here because Beam is an optional dependency.
            from deepfm_jax.datasets.beam.build import BeamBuild

            self._beam_build = BeamBuild(
                self._beam, self.name, self.schema, self.data_dir, extended=extended
            )
            self._passes = self._beam_build.passes
            self._save_beside(self._beam_build.fit(self.read_splits()))
            return self._beam_build.blocks()
        splits = self.read_splits()
        tables = _with_progress(splits["train"](None), "vocabularies")
        if extended is None:
            encoder = fit(tables, self.schema)
        else:
            encoder = extend(extended, tables, self.schema)
        self._save_beside(encoder)
        return {
            split: self._generate_examples(split, read, encoder) for split, read in splits.items()
        }

    def _save_beside(self, encoder: Encoder) -> None:
        """Writes the other files of the folder beside the blocks, so it is complete or absent."""
        folder = pathlib.Path(self.data_dir)
        (folder / OPTIONS_FILE).write_text(json.dumps(dataclasses.asdict(self.options)))
        made_of = origin(self.options, self.source)
        if made_of:
            (folder / SOURCE_FILE).write_text(json.dumps(made_of))
        encoder.save(folder)
        for name, content in self._extra_files().items():
            (folder / f"{name}.json").write_text(json.dumps(content, indent=2))

    def _generate_examples(self, split: str, read: ReadSplit, encoder: Encoder):
        folder = pathlib.Path(self.data_dir)
        with rejects_file(folder, split) as add_rejected:
            report = RowReport(on_rejected=add_rejected)
            tally = SplitTally(split, encoder)

            def encoded() -> Iterator[Block]:
                for table in _with_progress(read(report), f"encode {split}"):
                    rows = encoder.encode(table)
                    tally.add_longer(rows.longer)
                    yield arrays_of(rows)

            for number, block in cut_blocks(encoded()):
                tally.add(BlockTally.of(block))
                yield number, block
            tally.write(folder, report)

    def _process_pipeline_result(self, pipeline_result: Any) -> None:
        """Called by TFDS after Beam has written the blocks."""
        del pipeline_result
        assert self._beam_build is not None  # It created the pipeline.
        self._beam_build.finish()


def _with_progress(tables: Iterable[pa.Table], title: str) -> Iterator[pa.Table]:
    """Yields the tables, with a progress bar of their rows."""
    with tqdm(desc=title, unit=" rows", unit_scale=True, mininterval=0.5) as bar:
        for table in tables:
            yield table
            bar.update(table.num_rows)
