"""Fields of several values and shared vocabularies, encoded; against loops over rows and values."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import (
    Categorical,
    Cross,
    History,
    Label,
    MultiValued,
    Numeric,
    Schema,
)
from deepfm_jax.encoding.encoder import Encoder, fit
from deepfm_jax.features import Feature
from deepfm_jax.readers.sources import typed_table

WEIGHTED_CELLS = st.lists(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from([0, 0.25, 1, 3.5, 1e-9, 1e9])),
        max_size=6,
    ),
    min_size=1,
    max_size=8,
)


def rows_of(schema, **cells):
    count = len(next(iter(cells.values())))
    return typed_table({"y": [0.0] * count, **cells}, schema)


def naive_slots(cells, field, id_of, missing):
    """ids and values of the field, row by row and value by value, in float64.

    ``cells`` are lists of (value, weight); ``id_of`` has the ids of values that have one.
    """
    slots = field.max_length
    ids, values = [], []
    for cell in cells:
        kept = [(value, weight) for value, weight in cell if weight > 0]
        kept = kept[-slots:] if isinstance(field, History) else kept[:slots]
        row = [(id_of.get(value, 0), weight) for value, weight in kept]
        row = row or [(missing, 1.0)]
        row += [(-1, 0.0)] * (slots - len(row))
        ids.append([i for i, _ in row])
        values.append([x for _, x in row])
    return ids, values


def naive_vocabulary(cells, field, first):
    """ids of values by the counts of those that are kept, ties to the lesser."""
    counts = Counter()
    for cell in cells:
        kept = [value for value, weight in cell if weight > 0]
        counts.update(
            kept[-field.max_length :] if isinstance(field, History) else kept[: field.max_length]
        )
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    kept = [value for value in ranked if counts[value] >= field.min_count][: field.max_size]
    return {value: number for number, value in enumerate(kept, start=first)}


@settings(max_examples=200, deadline=None)
@given(
    WEIGHTED_CELLS,
    WEIGHTED_CELLS,
    st.sampled_from([MultiValued, History]),
    st.sampled_from(["mean", "sum", "sqrtn"]),
    st.integers(1, 5),
    st.booleans(),
    st.integers(1, 2),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
)
def test_slots_are_those_of_a_loop(
    train, cells, kind, combiner, slots, weighted, min_count, max_size, separate
):
    field = kind(
        "g",
        max_length=slots,
        combiner=combiner,
        weight_separator=":" if weighted else None,
        min_count=min_count,
        max_size=max_size,
        separate_missing=separate,
    )
    if not weighted:
        train, cells = ([[(v, 1.0) for v, _ in row] for row in rows] for rows in (train, cells))
    schema = Schema((Label("y"), Numeric("x"), field))

    def typed(rows):
        join = (lambda v, w: f"{v}:{w}") if weighted else (lambda v, w: v)
        text = ["|".join(join(v, w) for v, w in row) for row in rows]
        return rows_of(schema, g=text, x=[1.0] * len(rows))

    encoder = fit([typed(train)], schema)
    id_of = naive_vocabulary(train, field, first=1 + separate)
    encoded = encoder.encode(typed(cells))
    ids, values = naive_slots(cells, field, id_of, missing=int(separate))
    assert encoded.ids[:, 1:].tolist() == ids
    np.testing.assert_allclose(encoded.values[:, 1:], values, rtol=1e-6)
    rows = 1 + separate + len(id_of)
    assert encoder.features == (
        Feature(2, name="x"),
        Feature(rows, slots, pooling=combiner, name="g"),
    )
    longer = sum(sum(weight > 0 for _, weight in row) > slots for row in cells)
    assert encoded.longer == {"g": longer}


@settings(max_examples=50, deadline=None)
@given(WEIGHTED_CELLS, st.integers(1, 4), st.sampled_from([MultiValued, History]))
def test_chunks_and_layouts_of_cells_do_not_matter(cells, size, kind):
    field = kind("g", weight_separator=":", combiner="sqrtn", max_length=3)
    schema = Schema((Label("y"), Categorical("c", shares_with="g"), field))
    text = ["|".join(f"{value}:{weight}" for value, weight in row) for row in cells]
    lists = pa.array(cells, pa.map_(pa.string(), pa.float64()))
    c = ["a", "b"] * 4
    whole = rows_of(schema, g=text, c=c[: len(cells)])
    other = rows_of(schema, g=lists, c=c[: len(cells)])
    chunks = [whole.slice(start, size) for start in range(0, len(cells), size)]
    encoder = fit([whole], schema)
    assert encoder.fingerprint() == fit(chunks, schema).fingerprint()
    assert encoder.fingerprint() == fit([other], schema).fingerprint()
    encoded = encoder.encode(whole)
    for parts in (chunks, [other], [whole.filter(pa.array([True] * len(cells)))]):
        for name in ("ids", "values"):
            together = np.concatenate([getattr(encoder.encode(part), name) for part in parts])
            np.testing.assert_array_equal(together, getattr(encoded, name))


SHARED = Schema(
    (
        Label("y"),
        Categorical("item", "integer", min_count=2, separate_missing=True),
        Categorical("other", "integer", shares_with="item"),
        History("past", "integer", max_length=3, shares_with="item"),
        Categorical("user"),
    ),
    crosses=(Cross(("user", "item"), buckets=50),),
)


@pytest.fixture
def shared():
    return rows_of(
        SHARED,
        item=[1, 2, None, 9],
        other=[3, 2, None, 8],
        past=[[1, 2, 3, 4], [3], [], [5, None, 5]],
        user=["u", "v", "u", "w"],
    )


def test_a_shared_vocabulary_is_fitted_on_all_columns_that_share_it(shared):
    encoder = fit([shared], SHARED)
    # 2: item, other, past. 3: other, past twice. 5: past twice. The oldest of the first past is
    # not kept, so 1 is there once, as are 4, 8 and 9.
    assert encoder.coders[0].vocabulary.to_pylist() == [2, 3, 5]
    assert encoder.coders[0].counts.to_pylist() == [3, 3, 2]
    assert encoder.features == (
        Feature(5, name="item"),
        Feature(5, shared_with=0, name="other"),
        Feature(5, slots=3, shared_with=0, pooling="mean", name="past"),
        Feature(4, name="user"),
        Feature(51, crossed=True, name="user x item"),
    )
    encoded = encoder.encode(shared)
    assert encoded.ids[:, :5].tolist() == [
        [0, 3, 2, 3, 0],
        [2, 2, 3, -1, -1],
        [1, 1, 1, -1, -1],
        [0, 0, 4, 4, -1],
    ]
    assert encoded.values[:, 2:5].tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert (encoded.values[:, [0, 1, 5, 6]] == 1).all()
    # Crosses read the slots of their parts, wherever these are.
    assert (encoded.ids[:, 6] > 0).tolist() == [False, True, True, False]


def test_saved_and_loaded_it_shares_still(shared, tmp_path):
    encoder = fit([shared], SHARED)
    encoder.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert loaded.schema == SHARED
    assert loaded.fingerprint() == encoder.fingerprint()
    assert loaded.coders[1] is loaded.coders[2] is loaded.coders[0]
    np.testing.assert_array_equal(loaded.encode(shared).ids, encoder.encode(shared).ids)
    found = json.loads((tmp_path / "encoder.json").read_text())["features"]
    assert [Feature(**feature) for feature in found] == list(encoder.features)


@pytest.mark.parametrize(
    ("owner", "sharing"),
    [
        (Categorical("a", hash_buckets=50), MultiValued("b", shares_with="a", max_length=4)),
        (
            Categorical("a", "id", size=9),
            MultiValued("b", "id", size=9, shares_with="a", max_length=4),
        ),
        (
            MultiValued("a", "integer", hash_buckets=5, max_length=4),
            Categorical("b", "integer", shares_with="a"),
        ),
    ],
)
def test_hashes_and_ids_may_be_shared(owner, sharing, tmp_path):
    schema = Schema((Label("y"), owner, sharing))
    whole = isinstance(owner, MultiValued)
    one, several = ["3", "7", ""], ["7|3", "", "3"]
    rows = rows_of(schema, a=several if whole else one, b=one if whole else several)
    encoder = fit([rows], schema)
    ids = encoder.encode(rows).ids
    single, first = (4, 0) if whole else (0, 1)
    assert ids[0, single] == ids[0, first + 1] == ids[2, first]
    assert ids[1, single] == ids[0, first]
    assert ids[2, single] == ids[1, first] == 0
    assert (ids[:, first + 2 : first + 4] == -1).all()
    encoder.save(tmp_path)
    assert Encoder.load(tmp_path).features == encoder.features


def test_encoding_no_rows_gives_no_rows(shared):
    encoded = fit([shared], SHARED).encode(shared.slice(0, 0))
    assert encoded.ids.shape == encoded.values.shape == (0, 7)
    assert encoded.longer == {"past": 0}


def test_the_length_of_a_history_changes_what_is_counted(shared):
    columns = [
        dataclasses.replace(c, max_length=4) if isinstance(c, History) else c
        for c in SHARED.columns
    ]
    encoder = fit([shared], dataclasses.replace(SHARED, columns=tuple(columns)))
    assert 1 in encoder.coders[0].vocabulary.to_pylist()
    assert encoder.encode(shared).longer == {"past": 0}
