"""Negative down-sampling: which examples a pass keeps, determined by seed, epoch and block."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import UserError
from deepfm_jax.input import shuffle
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.input.sampling import SampledBlocks, kept_negatives
from tests.click_logs import ROWS

RATE = 0.3
BATCH = 384


class Blocks:
    """Blocks of numbered examples with one label each."""

    def __init__(self, labels):
        ends = np.cumsum([len(block) for block in labels])[:-1]
        numbers = np.split(np.arange(sum(map(len, labels))), ends)
        self._blocks = [
            {"row": row, "labels": np.array(label, np.float32).reshape(-1, 1)}
            for row, label in zip(numbers, labels, strict=True)
        ]

    def __getitems__(self, indices):
        return [self._blocks[index] for index in indices]

    def sampled(self, rate, key):
        labels = [block["labels"][:, 0] for block in self._blocks]
        negatives = np.array([int((label == 0).sum()) for label in labels])
        rows = np.array([len(label) for label in labels])
        return SampledBlocks(self, 0, negatives, rows, rate, key)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=9), st.floats(0.01, 1))
def test_each_block_keeps_its_share_of_the_negatives(negatives, rate):
    negatives = np.array(negatives)
    kept = kept_negatives(negatives, rate)
    assert abs(kept.sum() - rate * negatives.sum()) <= 0.5 + 1e-9
    assert ((kept >= 0) & (kept <= negatives)).all()
    assert (np.abs(kept - rate * negatives) <= 1 + 1e-9).all()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0, 1, np.nan]), max_size=12), min_size=1, max_size=6),
    st.floats(0.05, 0.95),
    st.integers(0, 9),
)
def test_negatives_alone_are_left_out_by_the_stated_number_and_in_order(labels, rate, epoch):
    blocks = Blocks(labels)
    sampled = blocks.sampled(rate, (5, epoch))
    indices = list(range(len(labels)))
    for size, whole, part in zip(
        sampled.sizes, blocks.__getitems__(indices), sampled.__getitems__(indices), strict=True
    ):
        assert len(part["row"]) == size
        assert (np.diff(part["row"]) > 0).all()
        others = whole["row"][whole["labels"][:, 0] != 0]
        assert set(others) <= set(part["row"])
        assert (part["labels"] != 0).sum() == len(others)
    kept = sum((part["labels"] == 0).sum() for part in sampled.__getitems__(indices))
    assert abs(kept - rate * sum(block.count(0) for block in labels)) <= 0.5 + 1e-9


def test_every_negative_is_equally_likely_over_epochs():
    sampled_in = np.zeros(40)
    epochs = 4000
    blocks = Blocks([[0] * 40])
    for epoch in range(epochs):
        (block,) = blocks.sampled(0.25, (1, epoch)).__getitems__([0])
        sampled_in[block["row"]] += 1
    assert sampled_in.sum() == 10 * epochs
    # Five standard deviations of a binomial with 4000 draws at 0.25.
    np.testing.assert_allclose(sampled_in / epochs, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / epochs))


@pytest.fixture
def data(prepared):
    return PreparedData("frappe", prepared)


@pytest.fixture(params=[64, 1], ids=lambda blocks: f"window={blocks}")
def any_window(request, monkeypatch):
    monkeypatch.setattr(shuffle, "WINDOW_BLOCKS", request.param)


def batches(data, **changes):
    arguments = {"seed": 3, "epoch": 2, "negative_rate": RATE, **changes}
    return list(data.batches("train", BATCH, **arguments))


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_a_pass_has_all_positives_and_a_share_of_the_negatives(data):
    positives = data.summaries["train"].positives
    negatives = ROWS["train"] - positives
    found = batches(data)
    assert data.rows("train", RATE) == positives + round(RATE * negatives)
    assert len(found) == data.steps_per_epoch("train", BATCH, RATE)
    assert all(batch["mask"].all() for batch in found[:-1])
    assert sum(batch["mask"].sum() for batch in found) == data.rows("train", RATE)
    assert sum((batch["mask"] * batch["labels"][:, 0]).sum() for batch in found) == positives


@pytest.mark.usefixtures("any_window")
@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("start", [1, 7, 15])
def test_a_pass_resumes_where_it_stopped(data, start, streams):
    whole = batches(data, streams=streams)
    assert_same(batches(data, streams=streams, start_batch=start), whole[start:])


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("hosts", [2, 3])
def test_parts_of_hosts_add_up_to_the_batches(data, streams, hosts):
    whole = batches(data, streams=streams)
    edges = np.arange(0, BATCH + 1, BATCH // hosts).tolist()
    parts = [batches(data, streams=streams, part=part) for part in itertools.pairwise(edges)]
    joined = [
        {key: np.concatenate([share[key] for share in shares]) for key in shares[0]}
        for shares in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


def negatives(found):
    rows = [b["ids"][(b["mask"] > 0) & (b["labels"][:, 0] == 0)] for b in found]
    return {tuple(row) for row in np.concatenate(rows).tolist()}


def test_epochs_and_seeds_keep_different_negatives(data):
    first = negatives(batches(data))
    for other in ({"epoch": 3}, {"seed": 4}):
        again = negatives(batches(data, **other))
        # Independent draws have about RATE of their examples in common.
        assert 0.2 < len(first & again) / len(first) < 0.4


def test_impossible_rates_are_refused(data):
    with pytest.raises(UserError, match=r"keeps none of the [\d,]+ negative examples"):
        data.rows("train", 1e-5)
    with pytest.raises(UserError, match=r"negative_rate=0\.0 must be above 0"):
        batches(data, negative_rate=0.0)
    with pytest.raises(ValueError, match="requires a seed"):
        batches(data, seed=None)
