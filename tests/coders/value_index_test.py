import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepfm_jax.coders import value_index
from deepfm_jax.coders.value_index import ValueIndex

VALUES = st.one_of(
    st.tuples(st.just(pa.string()), st.lists(st.text(max_size=12), unique=True)),
    st.tuples(st.just(pa.int64()), st.lists(st.integers(-(2**63), 2**63 - 1), unique=True)),
)


def expected(vocabulary, cells):
    return pc.fill_null(pc.index_in(cells, value_set=vocabulary), -1).to_pylist()


@pytest.fixture(scope="module", params=["large", "small"])
def size(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(value_index, "_LARGE", 1 if request.param == "large" else 10**6)
        yield request.param


@given(values=VALUES, data=st.data())
def test_places_are_those_of_index_in(size, values, data):
    kind, pool = values
    cut = data.draw(st.integers(0, len(pool)))
    vocabulary = pa.array(pool[:cut], kind)
    cells = pa.array(data.draw(st.lists(st.sampled_from([None, *pool]))), kind)
    found = ValueIndex(vocabulary).places(cells)
    assert found.tolist() == expected(vocabulary, cells)


@pytest.mark.parametrize("distinct", [1, 3])
def test_texts_of_one_hash_stay_distinct(monkeypatch, distinct):
    monkeypatch.setattr(value_index, "_LARGE", 1)
    monkeypatch.setattr(
        value_index,
        "hash_text",
        lambda texts: np.array(
            [len(text or "") % distinct for text in texts.to_pylist()], np.uint64
        ),
    )
    cells = pa.array(["a", "bb", None, "ccc", "d", "ee"])
    for vocabulary in (pa.array(["a", "bb", "ccc"]), pa.array(["a", "d", "ee"]), pa.array(["ee"])):
        found = ValueIndex(vocabulary).places(cells)
        assert found.tolist() == expected(vocabulary, cells)


def test_a_missing_integer_is_not_zero(size):
    assert ValueIndex(pa.array([0, 5])).places(pa.array([None, 5, 0])).tolist() == [-1, 1, 0]
