"""Blocks on disk: in order, in as many files as needed, readable by TFDS."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from deepfm_jax.datasets import block_files

FEATURES = {
    "ids": tfds.features.Tensor(
        shape=(None, 3), dtype=np.int32, encoding=tfds.features.Encoding.BYTES
    ),
    "labels": tfds.features.Tensor(
        shape=(None, 1), dtype=np.float32, encoding=tfds.features.Encoding.BYTES
    ),
}


class Numbers(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Blocks of random numbers, written by ``write_split`` or by TFDS itself."""

    VERSION = tfds.core.Version("1.0.0")
    name = "numbers"
    ours = True

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(FEATURES), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples(40), "test": self._generate_examples(1)}

    def _generate_examples(self, count):
        yield from enumerate(blocks(count))

    def _generate_splits(self, dl_manager, download_config):
        if not self.ours:
            return super()._generate_splits(dl_manager, download_config)
        return [
            block_files.write_split(
                examples, self.info.features, self._get_filename_template(split)
            )
            for split, examples in self._split_generators(dl_manager).items()
        ]


def blocks(count):
    rng = np.random.default_rng(count)
    return [
        {
            "ids": rng.integers(0, 1000, (rows, 3), dtype=np.int32),
            "labels": rng.random((rows, 1), dtype=np.float32),
        }
        for rows in [*[50] * (count - 1), 7]
    ]


@pytest.mark.parametrize("file_blocks", [1, 13, 20, 1000])
def test_blocks_are_read_as_they_were_written(tmp_path, monkeypatch, file_blocks):
    monkeypatch.setattr(block_files, "FILE_BLOCKS", file_blocks)
    Numbers(data_dir=tmp_path).download_and_prepare(file_format="array_record")
    builder = tfds.builder_from_directory(tmp_path / "numbers" / "1.0.0")
    assert list(builder.info.splits) == ["train", "test"]
    for split, count in (("train", 40), ("test", 1)):
        source = builder.as_data_source(split)
        assert builder.info.splits[split].num_shards == -(-count // file_blocks)
        for read, written in zip(list(source), blocks(count), strict=True):
            for key, column in written.items():
                assert read[key].dtype == column.dtype
                np.testing.assert_array_equal(read[key], column)


def test_one_file_is_byte_for_byte_what_tfds_would_write(tmp_path, monkeypatch):
    for ours in (True, False):
        monkeypatch.setattr(Numbers, "ours", ours)
        Numbers(data_dir=tmp_path / str(ours)).download_and_prepare(file_format="array_record")
    left, right = (
        {path.name: path.read_bytes() for path in (tmp_path / str(ours)).rglob("*array_record*")}
        for ours in (True, False)
    )
    assert left == right
    assert set(left) == {
        "numbers-train.array_record-00000-of-00001",
        "numbers-test.array_record-00000-of-00001",
    }


def test_an_error_leaves_no_complete_file(tmp_path):
    builder = Numbers(data_dir=tmp_path)
    template = builder._get_filename_template("train")
    (tmp_path / "numbers" / "1.0.0").mkdir(parents=True)

    def failing():
        yield from enumerate(blocks(3))
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        block_files.write_split(failing(), builder.info.features, template)
    assert not list(tmp_path.rglob("*array_record*"))
