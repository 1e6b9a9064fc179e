import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax.input import shuffle
from deepfm_jax.input.shuffle import Stream


class Blocks:
    """Numbered examples in blocks; records which blocks were read."""

    def __init__(self, rows, block_rows):
        numbers = np.arange(rows)
        self._blocks = [numbers[i : i + block_rows] for i in range(0, rows, block_rows)]
        self.read = []

    def __len__(self):
        return len(self._blocks)

    @property
    def sizes(self):
        return np.array([len(block) for block in self._blocks])

    def __getitems__(self, indices):
        self.read.extend(indices)
        return [{"ids": self._blocks[index]} for index in indices]


def rows_of(stream):
    """Examples of a stream from its first window on, and their mask."""
    loads = [stream.load(window, ("ids",)) for window in range(stream.first, stream.count)]
    return (np.concatenate(column) for column in zip(*loads, strict=True))


sizes = {
    "rows": st.integers(1, 60),
    "block_rows": st.integers(1, 7),
    "window": st.integers(1, 4),
    "streams": st.integers(1, 9),
    "seed": st.none() | st.integers(0, 99),
}


@contextlib.contextmanager
def windows_of(blocks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffle, "WINDOW_BLOCKS", blocks)
        yield


@settings(max_examples=150, deadline=None)
@given(**sizes)
def test_streams_partition_a_pass_and_are_equally_long(rows, block_rows, window, streams, seed):
    with windows_of(window):
        seen, lengths = [], set()
        for index in range(streams):
            blocks = Blocks(rows, block_rows)
            stream = Stream(blocks, blocks.sizes, seed=seed, index=index, streams=streams)
            ids, mask = rows_of(stream)
            lengths.add(len(ids))
            seen.extend(ids[mask > 0])
            # Examples under mask 0 come last, so that only the last batch is not full.
            assert (np.diff(mask) <= 0).all()
    assert lengths == {-(-rows // streams)}
    assert sorted(seen) == list(range(rows))
    if seed is None:
        assert seen == list(range(rows))


@settings(max_examples=150, deadline=None)
@given(**sizes, share=st.floats(0, 1))
def test_a_stream_resumes_where_it_stopped(rows, block_rows, window, streams, seed, share):
    with windows_of(window):
        length = -(-rows // streams)
        skip = int(share * (length - 1))

        def make(skip_rows):
            blocks = Blocks(rows, block_rows)
            return Stream(
                blocks, blocks.sizes,
                seed=seed, epoch=3, index=streams - 1, streams=streams, skip_rows=skip_rows,
            )  # fmt: skip

        whole, rest = list(rows_of(make(0))), list(rows_of(make(skip)))
    for all_rows, some in zip(whole, rest, strict=True):
        np.testing.assert_array_equal(all_rows[skip:], some)


def test_a_stream_reads_only_its_own_blocks():
    read = []
    for index in range(4):
        blocks = Blocks(400, 10)
        list(rows_of(Stream(blocks, blocks.sizes, seed=5, index=index, streams=4)))
        read.append(set(blocks.read))
        assert len(blocks.read) == 10
    assert set.union(*read) == set(range(40))


def test_every_stream_has_its_own_permutation():
    places = []
    for index in range(2):
        blocks = Blocks(1024, 8)
        (ids, _) = Stream(blocks, blocks.sizes, seed=5, index=index, streams=2).load(0, ("ids",))
        unshuffled = np.concatenate([np.arange(8 * b, 8 * b + 8) for b in blocks.read])
        places.append(np.argsort(unshuffled)[np.searchsorted(np.sort(unshuffled), ids)])
    assert sorted(places[0]) == sorted(places[1]) == list(range(512))
    assert not np.array_equal(*places)


def test_blocks_may_be_of_any_size_and_empty():
    numbers = np.arange(50)
    blocks = Blocks(50, 50)
    blocks._blocks = np.split(numbers, [0, 7, 7, 8, 30, 49, 50])
    for streams in (1, 3):
        seen = []
        for index in range(streams):
            stream = Stream(blocks, blocks.sizes, seed=4, index=index, streams=streams)
            ids, mask = rows_of(stream)
            seen.extend(ids[mask > 0])
        assert sorted(seen) == list(range(50))
