import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepfm_jax import UserError
from deepfm_jax.encoding import value_vectors
from deepfm_jax.encoding.encoder import fit
from deepfm_jax.encoding.value_vectors import field_of_values, read_value_vectors
from deepfm_jax.readers.sources import typed_table
from deepfm_jax.schema import (
    Categorical,
    History,
    Label,
    MultiValued,
    Numeric,
    Schema,
    TextFormat,
    Timestamp,
    Vector,
)

SCHEMA = Schema(
    (
        Categorical("user", separate_missing=True),
        Categorical("item", "integer", min_count=2),
        History("seen", "integer", shares_with="item"),
        MultiValued("genres"),
        Categorical("site", hash_buckets=3),
        Categorical("slot", "id", size=4),
        Numeric("price"),
        Timestamp("time", parts=("hour",)),
        Vector("text", 2),
        Label("click"),
    ),
    TextFormat(trim=True, missing=("NA",)),
)
ROWS = {
    "user": ["ann", "bob", "cy", None],
    "item": ["10", "10", "20", "30"],
    "seen": ["20", "", "20|10", "30|99"],
    "genres": ["a|b", "b", "c", ""],
    "site": ["p", "q", "r", "s"],
    "slot": ["0", "3", "1", "1"],
    "price": ["1", "2", "3", "4"],
    "time": ["2024-01-01 05:00:00", "2024-01-01 06:00:00"] * 2,
    "text": ["1|2", "3|4", "5|6", "7|8"],
    "click": ["0", "1", "0", "1"],
}


@pytest.fixture(scope="module")
def encoder():
    return fit([typed_table(pa.table(ROWS), SCHEMA)], SCHEMA)


def write(path, values, vectors, name="value", kind=None):
    columns = {name: pa.array(values), "vector": pa.array(vectors, kind)}
    pq.write_table(pa.table(columns), path)
    return path


def by_value(encoder, column, found):
    """The vector of each value of a vocabulary that has one."""
    coder = encoder.coders[found.field]
    return {
        coder.vocabulary[int(id_) - coder.first_id].as_py(): vector.tolist()
        for id_, vector in zip(found.ids, found.vectors, strict=True)
    }


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float16(), 2)]
)
def test_values_of_a_vocabulary_get_their_vectors(encoder, tmp_path, kind):
    vectors = [np.asarray(v, np.float16) for v in ([1.0, 2.0], [3.0, 4.0], [5.0, 6.0])]
    path = write(tmp_path / "v.parquet", [" cy ", "dan", "ann"], vectors, "user", kind)
    found = read_value_vectors(path, encoder, "user")
    assert by_value(encoder, "user", found) == {"cy": [1.0, 2.0], "ann": [5.0, 6.0]}
    assert (found.field, found.possible, found.unknown, found.shared) == (0, 3, 1, 0)
    assert found.ids.min() == 2  # Ids 0 and 1 are of unseen and of missing users.
    assert found.ids.tolist() == sorted(found.ids)


def test_integers_are_read_as_the_column_reads_them(encoder, tmp_path):
    path = write(tmp_path / "v.parquet", ["0020", "10", "99"], [[1.0], [2.0], [3.0]], "item")
    found = read_value_vectors(path, encoder, "item")
    assert by_value(encoder, "item", found) == {20: [1.0], 10: [2.0]}
    assert (found.possible, found.unknown) == (3, 1)


def test_a_history_has_the_rows_of_its_owner(encoder, tmp_path):
    path = write(tmp_path / "v.parquet", [10], [[7]])
    found = read_value_vectors(path, encoder, "seen")
    assert (found.field, by_value(encoder, "seen", found)) == (1, {10: [7.0]})


def test_several_values_in_a_cell_and_parts_of_times_have_vectors_too(encoder, tmp_path):
    path = write(tmp_path / "g.parquet", ["b"], [[7.0]])
    found = read_value_vectors(path, encoder, "genres")
    assert (found.field, by_value(encoder, "genres", found)) == (3, {"b": [7.0]})
    path = write(tmp_path / "h.parquet", [6], [[8.0]])
    found = read_value_vectors(path, encoder, "time_hour")
    assert by_value(encoder, "time_hour", found) == {6: [8.0]}


def test_hashed_values_of_one_bucket_have_their_mean(encoder, tmp_path):
    rng = np.random.default_rng(0)
    values, vectors = [f"site{i}" for i in range(7)], rng.normal(size=(7, 2)).astype(np.float32)
    path = write(tmp_path / "v.parquet", values, list(vectors), "site")
    found = read_value_vectors(path, encoder, "site")
    ids = encoder.coders[found.field].value_ids(pa.array(values))
    buckets = {}
    for id_, vector in zip(ids, vectors, strict=True):
        buckets.setdefault(int(id_), []).append(vector.astype(np.float64))
    assert found.ids.tolist() == sorted(buckets)
    for id_, vector in zip(found.ids, found.vectors, strict=True):
        np.testing.assert_allclose(vector, sum(buckets[id_]) / len(buckets[id_]), rtol=1e-6)
    assert found.shared == sum(len(each) for each in buckets.values() if len(each) > 1) > 0
    assert (found.possible, found.unknown) == (3, 0)


def test_ids_as_they_are_start_with_0(encoder, tmp_path):
    path = write(tmp_path / "v.parquet", [3, 0], [[1.0], [2.0]])
    found = read_value_vectors(path, encoder, "slot")
    assert (found.ids.tolist(), found.vectors.tolist()) == ([0, 3], [[2.0], [1.0]])
    assert found.possible == 4


def test_several_files_behind_a_url_are_one_source(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(value_vectors, "_PARQUET_ROWS", 2)
    write(tmp_path / "v0.parquet", ["ann", "x", "y"], [[1.0], [2.0], [3.0]])
    write(tmp_path / "v1.parquet", ["bob", "z", "cy"], [[4.0], [5.0], [6.0]])
    found = read_value_vectors(f"file://{tmp_path}/v*.parquet", encoder, "user")
    assert by_value(encoder, "user", found) == {"ann": [1.0], "bob": [4.0], "cy": [6.0]}
    assert found.unknown == 3


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("itm", "column 'itm' is not a column of the schema; columns with ids: user, item"),
        ("price", "column 'price' is a numeric column, whose values have no ids"),
        ("text", "column 'text' is a vector column"),
        ("click", "column 'click' is a label column"),
        ("time", "column 'time' is a timestamp column, .*time_hour"),
    ],
)
def test_a_column_whose_values_have_no_ids_is_refused(encoder, column, message):
    with pytest.raises(UserError, match=message):
        field_of_values(encoder, column)


@pytest.mark.parametrize(
    ("column", "values", "vectors", "message"),
    [
        ("user", ["a", "ann", None], [[1.0]] * 3, "v.parquet, row 3: has no value; leave"),
        ("user", ["a", "", "ann"], [[1.0]] * 3, "row 2: has no value"),
        ("user", ["NA", "ann"], [[1.0]] * 2, "row 1: has no value"),
        ("item", ["10", "x7"], [[1.0]] * 2, "row 2: value 'x7' is not an integer"),
        ("slot", [3, 4], [[1.0]] * 2, "row 2: value '4' is not an id from 0 to 3"),
        ("user", ["ann", "bob"], [[1.0, 2.0], [3.0]], "row 2: the vector has 1 numbers, but .* 2"),
        ("user", ["ann", "bob"], [[1.0], None], "row 2: the vector is missing"),
        ("user", ["ann"], [[]], "row 1: the vector is missing"),
        ("user", ["x", "x", "bob"], [[1.0], [2.0], [float("nan")]], "row 3: the vector has nan"),
        ("user", ["ann"], [[1.0, 1e300]], "row 1: the vector has inf among its numbers"),
        ("user", ["ann"], [[1.0, None]], "row 1: the vector has nan among"),
        (
            "user",
            ["bob", "ann", "bob", "ann"],
            [[1.0]] * 4,
            "row 3: value 'bob' of column 'user' already has a vector in .*v.parquet, row 1; keep",
        ),
        ("site", ["p", "q", "p"], [[1.0]] * 3, "row 3: value 'p' of column 'site' already has a v"),
        ("user", ["x", "y"], [[1.0]] * 2, "none of the 3 values of column 'user' has a vector"),
        ("user", ["ann"], ["0.5 0.6"], "column 'vector': is string, not lists of numbers"),
        ("user", ["ann"], [["0.5"]], "column 'vector': is list<.*string>, not lists of numb"),
    ],
)
def test_bad_rows_are_named(encoder, tmp_path, column, values, vectors, message):
    kind = pa.list_(pa.float64()) if vectors == [[]] else None
    path = write(tmp_path / "v.parquet", values, vectors, kind=kind)
    with pytest.raises(UserError, match=message):
        read_value_vectors(path, encoder, column)


def test_rows_are_counted_over_parts_of_a_file(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(value_vectors, "_PARQUET_ROWS", 2)
    path = write(tmp_path / "v.parquet", ["x", "ann", "y", "bob", "ann"], [[1.0]] * 5)
    with pytest.raises(UserError, match=r"row 5: value 'ann' .* in .*v\.parquet, row 2"):
        read_value_vectors(path, encoder, "user")
    path = write(tmp_path / "v.parquet", ["x", "ann", "y", "bob"], [[1.0]] * 3 + [[1.0, 2.0]])
    with pytest.raises(
        UserError, match="row 4: the vector has 2 numbers, but those before it have 1"
    ):
        read_value_vectors(path, encoder, "user")


def test_a_file_that_is_not_there_or_of_another_kind_is_reported(encoder, tmp_path):
    with pytest.raises(UserError, match=r"none\.parquet: no such file"):
        read_value_vectors(tmp_path / "none.parquet", encoder, "user")
    path = tmp_path / "v.parquet"
    path.write_text("user,vector\n")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_value_vectors(path, encoder, "user")
    write(path, ["ann"], [[1.0]], name="users")
    with pytest.raises(UserError, match="has no column 'user' or 'value'; it has 'users', 'vector"):
        read_value_vectors(path, encoder, "user")
    pq.write_table(pa.table({"user": ["ann"], "vectors": [[1.0]]}), path)
    with pytest.raises(UserError, match="has no column 'vector'; it has 'user', 'vectors'"):
        read_value_vectors(path, encoder, "user")


@pytest.mark.parametrize("name", ["user", "vector", "other"])
def test_a_name_that_stands_twice_is_refused(encoder, tmp_path, name):
    columns = {"user": pa.array(["ann"]), "vector": pa.array([[1.0]]), "other": pa.array([1])}
    names = [*columns, name]
    table = pa.Table.from_arrays([columns[each] for each in names], names)
    pq.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(UserError, match=rf"v\.parquet: column '{name}' appears twice"):
        read_value_vectors(tmp_path / "v.parquet", encoder, "user")
