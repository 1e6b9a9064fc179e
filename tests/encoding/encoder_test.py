import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import Categorical, Label, Numeric, Schema, UserError
from deepfm_jax.coders.buckets import log2_floor
from deepfm_jax.encoding.crosses import cross_ids
from deepfm_jax.encoding.encoder import Encoder, fit
from deepfm_jax.schema import Cross
from tests.encoders import field_rows

SCHEMA = Schema(
    (
        Label("y"),
        Categorical("c", min_count=2),
        Categorical("m", separate_missing=True),
        Categorical("i", dtype="integer"),
        Numeric("log"),
        Numeric("std", transform="standardise"),
        Numeric("lf", transform="log2_floor", min_count=2),
        Numeric("q", transform="quantile", buckets=4),
    )
)


def table(**columns):
    types = {"y": pa.float32(), "c": pa.string(), "m": pa.string(), "i": pa.int64()}
    return pa.table(
        {name: pa.array(cells, types.get(name, pa.float64())) for name, cells in columns.items()}
    )


TRAIN = table(
    y=[1, 0, 1, 0, 1, 0],
    c=["a", "b", "a", "b", "b", "rare"],
    m=["x", None, "x", "z", None, "x"],
    i=[5, 5, -3, None, 2**40, 5],
    log=[0, 1, -1, None, 100, 7],
    std=[1, 2, 3, None, 4, 5],
    lf=[0, 1, 1, 50, 50, None],
    q=[1, 2, 3, 4, 5, None],
)


@pytest.fixture
def encoder():
    return fit([TRAIN], SCHEMA)


def encode_column(encoder, name, cells):
    """ids and values of one column; the others are filled with training cells."""
    repeated = [i % TRAIN.num_rows for i in range(len(cells))]
    full = {n: TRAIN[n].take(repeated).to_pylist() for n in TRAIN.column_names}
    encoded = encoder.encode(table(**{**full, name: cells}))
    slot = [field.name for field in SCHEMA.fields].index(name)
    return encoded.ids[:, slot].tolist(), encoded.values[:, slot].tolist()


def test_ids_follow_frequency_then_value_and_rare_values_share_id_zero(encoder):
    ids, values = encode_column(encoder, "c", ["b", "a", "rare", "unseen", None])
    assert ids == [1, 2, 0, 0, 0]
    assert values == [1.0] * 5


def test_missing_may_have_an_id_of_its_own(encoder):
    assert encode_column(encoder, "m", ["x", "z", None, "unseen"])[0] == [2, 3, 1, 0]


def test_integers_are_values_not_sizes(encoder):
    assert encode_column(encoder, "i", [5, -3, 2**40, None, 7])[0] == [1, 2, 3, 0, 0]


def test_log_keeps_the_sign(encoder):
    ids, values = encode_column(encoder, "log", [0, 100, -100, None, 1e12])
    assert ids == [1, 1, 1, 0, 1]
    expected = [0, math.log(101), -math.log(101), 1.0, math.log(1e12 + 1)]
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_standardise_uses_the_training_mean_and_deviation(encoder):
    ids, values = encode_column(encoder, "std", [3, 5, None])
    assert ids == [1, 1, 0]
    np.testing.assert_allclose(values, [0, 2 / math.sqrt(2), 1.0], rtol=1e-6)


def test_log2_floor_buckets_are_categories(encoder):
    # 1 and 50 twice each, 0 once (below min_count): floor(ln(50)^2) = 15.
    assert encode_column(encoder, "lf", [1, 50, 0, None, 51.0, 1e6])[0] == [1, 2, 0, 0, 2, 0]


def test_quantile_buckets_cover_the_line(encoder):
    ids, _ = encode_column(encoder, "q", [-1e9, 1, 2, 3, 4, 5, 1e9, None])
    assert ids[-1] == 0
    assert ids[0] == ids[1] == 1
    assert ids[:-1] == sorted(ids[:-1])
    assert max(ids) == field_rows(encoder)[-1] - 1
    assert ids[5] == ids[6]


@pytest.mark.parametrize(
    ("x", "bucket"),
    [(-7.2, -8), (-1, -1), (0, 0), (1, 1), (2, 2), (2.5, 0), (3, 1), (5, 2), (20, 8), (1e6, 190)],
)
def test_log2_floor_by_hand(x, bucket):
    assert log2_floor(np.array([x]))[0] == bucket
    if x > 2:
        assert bucket == math.floor(math.log(x) ** 2)


def test_every_id_lies_in_its_field(encoder):
    encoded = encoder.encode(TRAIN)
    assert (encoded.ids >= 0).all()
    assert (encoded.ids < np.asarray(field_rows(encoder))).all()
    assert encoded.ids.dtype == np.int32
    assert encoded.labels.tolist() == [[1], [0], [1], [0], [1], [0]]


def test_rows_without_labels_have_none(encoder):
    assert encoder.encode(TRAIN.drop_columns(["y"])).labels is None


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_fit_depends_neither_on_chunks_nor_on_order(size, random):
    order = list(range(TRAIN.num_rows))
    random.shuffle(order)
    shuffled = TRAIN.take(order)
    chunks = [shuffled.slice(start, size) for start in range(0, TRAIN.num_rows, size)]
    assert fit(chunks, SCHEMA).fingerprint() == fit([TRAIN], SCHEMA).fingerprint()


def test_many_chunks_are_merged_on_the_way():
    schema = Schema((Label("y"), Categorical("c", min_count=40)))
    chunks = [table(y=[0, 1], c=["a", f"v{i % 2}"]) for i in range(100)]
    encoder = fit(chunks, schema)
    assert encoder.coders[0].vocabulary.to_pylist() == ["a", "v0", "v1"]
    assert encoder.coders[0].counts.to_pylist() == [100, 50, 50]


def test_saved_and_loaded_it_is_the_same(encoder, tmp_path):
    encoder.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.json", "encoder.parquet"]
    loaded = Encoder.load(tmp_path)
    assert loaded.schema == encoder.schema
    assert loaded.fingerprint() == encoder.fingerprint()
    ours, theirs = encoder.encode(TRAIN), loaded.encode(TRAIN)
    np.testing.assert_array_equal(ours.ids, theirs.ids)
    np.testing.assert_array_equal(ours.values, theirs.values)


def coded(categorical, cells, train=None):
    """ids of ``cells``, and the encoder, of a schema with one field fitted on ``train``."""
    kind = pa.string() if categorical.dtype == "string" else pa.int64()
    schema = Schema((Label("y"), categorical))

    def rows(column):
        labels = pa.array([0.0] * len(column), pa.float32())
        return pa.table({"y": labels, categorical.name: pa.array(column, kind)})

    encoder = fit([rows(train or cells)], schema)
    return encoder.encode(rows(cells)).ids[:, 0].tolist(), encoder


def test_the_most_frequent_values_have_the_ids_and_ties_fall_to_the_lesser():
    train = ["b", "d", "a", "c", "c", "a", "e", "d", None, None, None, "c"]
    ids, encoder = coded(Categorical("c", max_size=2), ["c", "a", "d", "b", "new", None], train)
    assert ids == [1, 2, 0, 0, 0, 0]
    assert field_rows(encoder) == (3,)
    ids, _ = coded(Categorical("c", dtype="integer", max_size=1), [10, 9, None], [9, 10])
    assert ids == [0, 1, 0]
    # Both limits hold, and missing values do not count among the most frequent.
    both = Categorical("c", max_size=3, min_count=2, separate_missing=True)
    assert coded(both, ["c", "a", "d", "b", None], train)[0] == [2, 3, 4, 0, 1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), min_size=1), st.integers(1, 7), st.randoms())
def test_the_largest_vocabulary_does_not_depend_on_the_order_of_rows(cells, most, random):
    shuffled = list(cells)
    random.shuffle(shuffled)
    field = Categorical("c", max_size=most)
    first, second = coded(field, ["a"], cells)[1], coded(field, ["a"], shuffled)[1]
    assert first.fingerprint() == second.fingerprint()
    assert field_rows(first) == (1 + min(most, len(set(cells))),)


@pytest.mark.parametrize("dtype", ["string", "integer"])
def test_hashed_values_need_no_vocabulary(dtype, tmp_path):
    values = list(range(-50, 50)) if dtype == "integer" else [f"v{i}" for i in range(100)]
    field = Categorical("c", dtype=dtype, hash_buckets=1000, separate_missing=True)
    ids, encoder = coded(field, [*values, None], train=values[:1])
    assert ids[-1] == 0
    assert min(ids[:-1]) >= 1
    assert len(set(ids)) > 90
    assert field_rows(encoder) == (1001,)
    assert max(ids) < 1001
    encoder.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert loaded.schema == encoder.schema
    assert loaded.fingerprint() == encoder.fingerprint()
    # What it was fitted on makes no difference.
    assert coded(field, values, train=values[50:])[0] == ids[:-1]


def test_ids_are_taken_as_they_are(tmp_path):
    field = Categorical("c", dtype="id", size=2**24 + 3)
    ids, encoder = coded(field, [0, 5, 2**24 + 1, 2**24 + 2, None], train=[1])
    assert ids == [0, 5, 2**24 + 1, 2**24 + 2, 0]
    assert field_rows(encoder) == (2**24 + 3,)
    encoder.save(tmp_path)
    assert Encoder.load(tmp_path).fingerprint() == encoder.fingerprint()
    for outside in (-1, 2**24 + 3):
        with pytest.raises(
            UserError, match=r"column c: ids from .* are not all between 0 and 16777218"
        ):
            coded(field, [0, outside])


def test_hashed_columns_and_ids_can_be_crossed():
    columns = (Label("y"), Categorical("c", hash_buckets=9), Categorical("i", dtype="id", size=9))
    rows = table(y=[0, 1, 1], c=["a", "b", None], i=[3, 4, 4])
    encoder = fit([rows], Schema(columns, crosses=(Cross(("c", "i"), 50),)))
    ids = encoder.encode(rows).ids
    np.testing.assert_array_equal(ids[:, 2], cross_ids(ids[:, :2], 50))
    assert ids[2, 2] == 0
    assert field_rows(encoder) == (10, 9, 51)


def test_a_field_that_was_never_seen_still_encodes(tmp_path):
    schema = Schema((Label("y"), Categorical("c"), Numeric("q", transform="quantile")))
    encoder = fit([table(y=[0, 1], c=[None, None], q=[None, None])], schema)
    encoder.save(tmp_path)
    for each in (encoder, Encoder.load(tmp_path)):
        assert each.encode(table(y=[0], c=["new"], q=[3])).ids.tolist() == [[0, 1]]


def test_the_fingerprint_sees_every_part(encoder):
    other = fit([TRAIN.slice(0, 5)], SCHEMA)
    assert other.fingerprint() != encoder.fingerprint()


def test_damage_is_named(encoder, tmp_path):
    with pytest.raises(UserError, match="the encoder is incomplete"):
        Encoder.load(tmp_path)
    encoder.save(tmp_path)
    (tmp_path / "encoder.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="the encoder is damaged"):
        Encoder.load(tmp_path)
    encoder.save(tmp_path)
    text = (tmp_path / "encoder.json").read_text().replace('"format": 1', '"format": 99')
    (tmp_path / "encoder.json").write_text(text)
    with pytest.raises(UserError, match="format 99, this version reads 1"):
        Encoder.load(tmp_path)


def test_no_rows_cannot_be_fitted():
    with pytest.raises(UserError, match="no rows to fit"):
        fit([], SCHEMA)


CROSSES = (Cross(("i", "c"), buckets=1000), Cross(("q", "lf", "m"), buckets=7))


@pytest.fixture
def crossed():
    return fit([TRAIN], dataclasses.replace(SCHEMA, crosses=CROSSES))


def test_crosses_follow_the_fields_and_leave_them_as_they_are(encoder, crossed):
    assert field_rows(crossed) == (*field_rows(encoder), 1001, 8)
    plain, with_crosses = encoder.encode(TRAIN), crossed.encode(TRAIN)
    fields = len(SCHEMA.fields)
    np.testing.assert_array_equal(with_crosses.ids[:, :fields], plain.ids)
    np.testing.assert_array_equal(with_crosses.values[:, :fields], plain.values)
    assert (with_crosses.values[:, fields:] == 1).all()
    assert with_crosses.ids.shape == with_crosses.values.shape == (TRAIN.num_rows, fields + 2)


def test_a_cross_hashes_the_ids_of_its_parts_in_the_order_of_the_fields(crossed):
    ids = crossed.encode(TRAIN).ids
    c, m, i, lf, q = (
        ids[:, crossed.schema.slot_names.index(n)] for n in ("c", "m", "i", "lf", "q")
    )
    np.testing.assert_array_equal(ids[:, -2], cross_ids(np.stack([c, i], axis=1), 1000))
    np.testing.assert_array_equal(ids[:, -1], cross_ids(np.stack([m, lf, q], axis=1), 7))
    turned = tuple(dataclasses.replace(x, columns=x.columns[::-1]) for x in CROSSES)
    other = fit([TRAIN], dataclasses.replace(SCHEMA, crosses=turned))
    np.testing.assert_array_equal(other.encode(TRAIN).ids, ids)


def test_a_cross_has_id_zero_where_a_part_is_rare_unseen_or_missing(crossed):
    assert encode_column(crossed, "c", ["rare", "unseen", None])[0] == [0, 0, 0]
    rows = TRAIN.take([0, 0, 0, 0]).set_column(1, "c", pa.array(["rare", "unseen", None, "a"]))
    ids = crossed.encode(rows).ids
    assert ids[:3, -2].tolist() == [0, 0, 0]
    assert ids[3, -2] > 0
    # A missing cell that has an id of its own is a value like any other.
    rows = TRAIN.take([2, 2]).set_column(2, "m", pa.array([None, "unseen"], pa.string()))
    ids = crossed.encode(rows).ids
    assert ids[0, -1] > 0
    assert ids[1, -1] == 0


def test_no_rows_have_no_crosses(crossed):
    assert crossed.encode(TRAIN.slice(0, 0)).ids.shape == (0, len(SCHEMA.fields) + 2)


def test_crosses_of_a_schema_without_value_fields():
    columns = (Label("y"), Categorical("c"), Categorical("m"))
    encoder = fit([TRAIN], Schema(columns, crosses=(Cross(("c", "m")),)))
    assert encoder.encode(TRAIN).values is None


def test_crosses_are_saved_and_loaded_and_change_the_fingerprint(encoder, crossed, tmp_path):
    crossed.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert loaded.schema == crossed.schema
    assert field_rows(loaded) == field_rows(crossed)
    assert loaded.fingerprint() == crossed.fingerprint() != encoder.fingerprint()
    np.testing.assert_array_equal(loaded.encode(TRAIN).ids, crossed.encode(TRAIN).ids)
    fewer = (dataclasses.replace(CROSSES[0], buckets=999), CROSSES[1])
    other = fit([TRAIN], dataclasses.replace(SCHEMA, crosses=fewer))
    assert other.fingerprint() != crossed.fingerprint()


def test_the_fingerprint_does_not_depend_on_how_arrow_slices_values(encoder):
    def sliced(array):
        return pa.concat_arrays([array.slice(0, 1), array])[1:]

    coders = tuple(
        dataclasses.replace(each, vocabulary=sliced(each.vocabulary), counts=sliced(each.counts))
        for each in encoder.coders
    )
    same = dataclasses.replace(encoder, coders=coders)
    assert same.fingerprint() == encoder.fingerprint()


def test_the_fingerprint_sees_the_order_and_the_borders_of_values():
    def fingerprint(values):
        schema = Schema((Label("y"), Categorical("c")))
        coder = fit([table(y=[0], c=["x"])], schema).coders[0]
        coder = dataclasses.replace(
            coder, vocabulary=pa.array(values), counts=pa.array([1] * len(values), pa.int64())
        )
        return Encoder(schema, (coder,)).fingerprint()

    lists = (["ab", "c"], ["a", "bc"], ["c", "ab"], ["ab", "c", ""], ["abc"])
    assert len({fingerprint(values) for values in lists}) == len(lists)
