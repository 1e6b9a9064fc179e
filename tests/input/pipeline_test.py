import jax
import numpy as np
import pyarrow as pa
import pytest

from deepfm_jax import UserError
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import prepare
from deepfm_jax.distributed.partitioning import batch_sharding, create_mesh
from deepfm_jax.input import shuffle
from deepfm_jax.input.pipeline import PreparedData, prefetch_to_device
from deepfm_jax.readers.sources import read_tables
from tests.click_logs import ROWS, write_criteo

BATCH = 768


@pytest.fixture
def data(prepared):
    return PreparedData("frappe", prepared)


@pytest.fixture(params=[64, 2, 1], ids=lambda blocks: f"window={blocks}")
def any_window(request, monkeypatch):
    monkeypatch.setattr(shuffle, "WINDOW_BLOCKS", request.param)


@pytest.fixture(scope="module")
def raw(prepared, frappe_files):
    encoder = PreparedData("frappe", prepared).encoder
    tables = read_tables(frappe_files / "train.csv", encoder.schema)
    return encoder.encode(pa.concat_tables(tables))


def taken(batches):
    """ids and labels of the unmasked examples, joined."""
    kept = [(b["ids"][b["mask"] > 0], b["labels"][b["mask"] > 0]) for b in batches]
    return np.concatenate([np.concatenate(pair, axis=1) for pair in kept])


def as_multiset(rows):
    return rows[np.lexsort(rows.T)]


@pytest.mark.usefixtures("any_window")
def test_without_a_seed_examples_come_in_file_order(data, raw):
    rows = taken(data.batches("train", BATCH))
    np.testing.assert_array_equal(rows, np.concatenate([raw.ids, raw.labels], axis=1))


@pytest.mark.usefixtures("any_window")
def test_a_shuffled_pass_has_every_example_once(data, raw):
    rows = taken(data.batches("train", BATCH, seed=1))
    expected = np.concatenate([raw.ids, raw.labels], axis=1)
    assert not np.array_equal(rows, expected)
    np.testing.assert_array_equal(as_multiset(rows), as_multiset(expected))


def test_seed_and_epoch_decide_the_order(data):
    def rows(seed, epoch):
        return taken(data.batches("train", BATCH, seed=seed, epoch=epoch))

    np.testing.assert_array_equal(rows(1, 0), rows(1, 0))
    assert not np.array_equal(rows(1, 0), rows(1, 1))
    assert not np.array_equal(rows(1, 0), rows(2, 0))


@pytest.mark.usefixtures("any_window")
@pytest.mark.parametrize("start", [1, 5, 6, 13])
def test_a_pass_resumes_where_it_stopped(data, start):
    whole = list(data.batches("train", BATCH, seed=3, epoch=2))
    rest = list(data.batches("train", BATCH, seed=3, epoch=2, start_batch=start))
    assert len(rest) == len(whole) - start
    for ours, theirs in zip(rest, whole[start:], strict=True):
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key])


@pytest.mark.parametrize("streams", [1, 2, 8])
@pytest.mark.parametrize("hosts", [1, 2, 3, 4])
def test_parts_of_hosts_add_up_to_the_batches_for_any_streams(data, raw, streams, hosts):
    whole = list(data.batches("train", BATCH, seed=3, streams=streams, start_batch=4))
    assert len(whole) == data.steps_per_epoch("train", BATCH) - 4
    edges = np.arange(0, BATCH + 1, BATCH // hosts)
    parts = [
        data.batches("train", BATCH, seed=3, streams=streams, start_batch=4, part=(start, stop))
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    for batch, *shares in zip(whole, *parts, strict=True):
        for key, array in batch.items():
            np.testing.assert_array_equal(np.concatenate([share[key] for share in shares]), array)


@pytest.mark.parametrize("streams", [2, 8])
def test_every_example_is_in_one_batch_for_any_streams(data, raw, streams):
    batches = list(data.batches("train", BATCH, seed=3, streams=streams))
    assert len(batches) == data.steps_per_epoch("train", BATCH)
    assert all(batch["mask"].all() for batch in batches[:-1])
    expected = np.concatenate([raw.ids, raw.labels], axis=1)
    np.testing.assert_array_equal(as_multiset(taken(batches)), as_multiset(expected))


def test_streams_that_do_not_split_a_batch_are_refused(data):
    with pytest.raises(UserError, match="768 examples does not split evenly into 5 streams"):
        data.batches("train", BATCH, streams=5)


@pytest.mark.parametrize("batch_size", [BATCH, 1000, 20_000])
def test_the_last_batch_is_padded_with_its_own_examples_under_mask_zero(data, batch_size):
    batches = list(data.batches("train", batch_size, seed=1))
    assert len(batches) == data.steps_per_epoch("train", batch_size)
    assert all(batch["ids"].shape == (batch_size, 10) for batch in batches)
    assert sum(batch["mask"].sum() for batch in batches) == ROWS["train"]
    last = batches[-1]
    count = int(last["mask"].sum())
    for key in ("ids", "labels"):
        expected = last[key][np.arange(batch_size) % count]
        np.testing.assert_array_equal(last[key], expected)


def test_types_are_what_the_models_read(data):
    batch = next(iter(data.batches("valid", 8)))
    assert {key: value.dtype for key, value in batch.items()} == {
        "ids": np.int32,
        "labels": np.float32,
        "mask": np.float32,
    }
    assert batch["labels"].shape == (8, 1)


def test_batches_have_values_if_a_field_carries_numbers(tmp_path):
    write_criteo(tmp_path, {"train": 300, "valid": 50, "test": 50})
    prepare("criteo", tmp_path / "out", source=tmp_path, options=BuildOptions(numeric="log"))
    data = PreparedData("criteo", tmp_path / "out")
    (rows,) = data.batches("valid", 50)
    (table,) = read_tables(tmp_path / "valid.tsv", data.encoder.schema)
    encoded = data.encoder.encode(table)
    assert rows["values"].dtype == np.float32
    np.testing.assert_array_equal(rows["values"], encoded.values)
    np.testing.assert_array_equal(rows["ids"], encoded.ids)
    assert np.unique(rows["values"]).size > 10


def test_prefetching_keeps_order_and_splits_batches_over_devices(data):
    sharding = batch_sharding(create_mesh(), BATCH)
    plain = list(data.batches("train", BATCH, seed=1))
    ahead = list(prefetch_to_device(data.batches("train", BATCH, seed=1), sharding, depth=3))
    assert len(plain) == len(ahead)
    for ours, theirs in zip(ahead, plain, strict=True):
        assert ours["ids"].sharding == sharding
        assert ours["ids"].addressable_shards[0].data.shape == (BATCH // jax.device_count(), 10)
        np.testing.assert_array_equal(ours["ids"], theirs["ids"])


def test_tensorflow_sees_no_accelerator(data):
    import tensorflow as tf

    assert data.rows("train")
    assert tf.config.get_visible_devices("GPU") == []


def test_unprepared_data_name_the_command_to_run(tmp_path):
    with pytest.raises(UserError, match=r"run deepfm-jax prepare --dataset=frappe"):
        PreparedData("frappe", tmp_path)
