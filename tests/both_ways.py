"""Preparation locally and by Beam's DirectRunner, and whether the two are the same."""

import gzip

import numpy as np
import pytest

from deepfm_jax import UserError
from deepfm_jax.datasets.beam.engine import BeamEngine
from deepfm_jax.datasets.prepare import dataset_folder, prepare
from deepfm_jax.input.pipeline import PreparedData

ENGINE = BeamEngine("DirectRunner")


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def prepare_twice(name, tmp_path, source, options=None):
    """Prepares locally and by Beam, and checks that both write the same files, byte for byte."""
    local = prepare(name, tmp_path / "local", source=source, options=options)
    by_beam = prepare(name, tmp_path / "beam", source=source, options=options, beam=ENGINE)
    assert by_beam == local
    wanted = contents(dataset_folder(name, tmp_path / "local"))
    found = contents(dataset_folder(name, tmp_path / "beam"))
    assert found.keys() == wanted.keys()
    different = [str(path) for path in wanted if found[path] != wanted[path]]
    assert not different
    return local


def same_records(name, tmp_path):
    """Whether the blocks of both hold the same bytes in the same order.

    Two processes, of whatever kind, may write the arrays of a record in another order: protobuf
    keeps the entries of a map in none.
    """
    local, by_beam = (PreparedData(name, tmp_path / out) for out in ("local", "beam"))
    for split in ("train", "valid", "test"):
        batches = (data.batches(split, 1000) for data in (local, by_beam))
        for wanted, found in zip(*batches, strict=True):
            assert found.keys() == wanted.keys()
            assert all(found[key].tobytes() == wanted[key].tobytes() for key in wanted)


def same_error(name, tmp_path, source, options=None):
    """The one line that both ways end with; nothing is left of either."""
    messages = []
    for out, engine in ((tmp_path / "local", None), (tmp_path / "beam", ENGINE)):
        with pytest.raises(UserError) as raised:
            prepare(name, out, source=source, options=options, beam=engine)
        messages.append(str(raised.value))
        assert not [path for path in out.rglob("*") if path.is_file()]
    assert messages[0] == messages[1]
    return messages[0]


def write_parts(folder, split, lines, sizes, extension=".tsv.gz"):
    """Lines as files of odd sizes: ``train-0.tsv.gz`` and so on."""
    assert sum(sizes) == len(lines)
    ends = np.cumsum(sizes)
    for part, (size, end) in enumerate(zip(sizes, ends, strict=True)):
        text = "\n".join(lines[end - size : end]) + "\n"
        data = gzip.compress(text.encode()) if extension.endswith(".gz") else text.encode()
        (folder / f"{split}-{part}{extension}").write_bytes(data)
