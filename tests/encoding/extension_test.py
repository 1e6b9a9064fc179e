import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax import Categorical, Label, Numeric, Schema, Timestamp, UserError
from deepfm_jax.coders.buckets import log2_floor
from deepfm_jax.datasets.options import SOURCE_FILE, BuildOptions, origin
from deepfm_jax.datasets.prepare import dataset_folder, prepare
from deepfm_jax.encoding.encoder import Encoder, fit
from deepfm_jax.encoding.extension import check_grown, describe_growth, extend
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.schema import Cross
from tests import click_logs
from tests.encoders import field_rows

SMALL = {"train": 400, "valid": 60, "test": 60}


def schema(**options):
    return Schema((Label("y"), Categorical("c", **options), Numeric("n")))


def rows(values, numbers=None):
    count = len(values)
    return pa.table(
        {
            "y": pa.array([float(i % 2) for i in range(count)], pa.float32()),
            "c": pa.array(values, pa.string()),
            "n": pa.array(numbers or [float(i) for i in range(count)], pa.float64()),
        }
    )


def words(encoder):
    return encoder.coders[0].vocabulary.to_pylist()


letters = st.lists(st.one_of(st.none(), st.sampled_from("abcdefgh")), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(
    first=letters,
    second=letters,
    min_count=st.integers(1, 3),
    max_size=st.one_of(st.none(), st.integers(1, 6)),
)
def test_new_values_follow_the_old_ones_in_their_own_order(first, second, min_count, max_size):
    declared = schema(min_count=min_count, max_size=max_size)
    old = fit([rows(first)], declared)
    new = extend(old, [rows(second)], declared)
    counts = {value: second.count(value) for value in set(second) - {None, *words(old)}}
    fresh = sorted(
        (value for value, count in counts.items() if count >= min_count),
        key=lambda value: (-counts[value], value),
    )
    expected = (words(old) + fresh)[: max(max_size, len(words(old))) if max_size else None]
    assert words(new) == expected
    appended = [counts[value] for value in expected[len(words(old)) :]]
    assert new.coders[0].counts.to_pylist() == old.coders[0].counts.to_pylist() + appended
    check_grown(old, new)
    # Every value that had an id has the same one, and the same rows again change nothing.
    probe = rows([*"abcdefgh", None])
    ids, grown_ids = (encoder.encode(probe).ids[:, 0] for encoder in (old, new))
    np.testing.assert_array_equal(np.where(ids > 0, grown_ids, 0), ids)
    assert extend(new, [rows(second)], declared).fingerprint() == new.fingerprint()


def test_missing_values_keep_an_id_of_their_own():
    declared = schema(separate_missing=True)
    new = extend(fit([rows(["a", None])], declared), [rows(["b", "b", None])], declared)
    assert new.encode(rows(["a", "b", None, "c"])).ids[:, 0].tolist() == [2, 3, 1, 0]


@pytest.mark.parametrize("transform", ["standardise", "quantile", "log", "log2_floor"])
def test_numbers_are_read_as_they_were(transform):
    declared = Schema((Label("y"), Numeric("n", transform=transform, buckets=4)))
    first, second = ([float(i) for i in range(low, low + 9)] for low in (0, 90))
    old = fit([rows(["x"] * 9, first)], declared)
    new = extend(old, [rows(["x"] * 9, second)], declared)
    assert new.coders[0].statistics() == old.coders[0].statistics()
    before, after = (encoder.encode(rows(["x"] * 9, first)) for encoder in (old, new))
    np.testing.assert_array_equal(before.ids, after.ids)
    if before.values is not None:
        np.testing.assert_array_equal(before.values, after.values)
    buckets = set(log2_floor(np.array(second))) if transform == "log2_floor" else ()
    assert field_rows(new)[0] == field_rows(old)[0] + len(buckets)


def test_hashed_values_and_ids_as_they_are_stay():
    declared = Schema(
        (
            Label("y"),
            Categorical("c", hash_buckets=7),
            Categorical("i", dtype="id", size=9),
            Timestamp("t", parts=("hour",)),
        )
    )

    def table(hours):
        return pa.table(
            {
                "y": pa.array([0.0, 1.0], pa.float32()),
                "c": ["a", "b"],
                "i": [1, 2],
                "t": [0, 0],
                "t_hour": hours,
            }
        )

    old = fit([table([3, 4])], declared)
    new = extend(old, [table([4, 5])], declared)
    assert (field_rows(old), field_rows(new)) == ((8, 9, 3), (8, 9, 4))
    assert describe_growth(old, new) == "1 new values: t_hour 1"
    assert describe_growth(old, old).startswith("no new values")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (schema(min_count=2), r"column 'c' has min_count=1, but here it has min_count=2"),
        (schema(max_size=2), r"column 'c' has max_size=None, but here it has max_size=2"),
        (
            Schema((Label("y"), Categorical("c"), Numeric("m"))),
            r"column 'n' has name='n', but here it has name='m'",
        ),
        (Schema((Label("y"), Categorical("c"))), "3 columns instead of 2"),
        (
            Schema((Label("y"), Categorical("c"), Categorical("n")), crosses=(Cross(("c", "n")),)),
            r"column 'n' has kind='numeric', but here",
        ),
    ],
)
def test_another_schema_is_refused(other, message):
    with pytest.raises(UserError, match=f"another schema: {message}"):
        extend(fit([rows(["a"])], schema()), [rows(["a"])], other)


def test_an_encoder_that_does_not_continue_another_is_reported_by_its_column():
    old = fit([rows(["a", "a", "b"])], schema())
    for values, message in (
        (["b", "b", "a"], "column 'c': id 1 means 'b', but in the older encoder it means 'a'"),
        (["a", "a", "b", "c"], r"column 'n': the mean, standard deviation or quantile edges"),
    ):
        with pytest.raises(UserError, match=message):
            check_grown(old, fit([rows(values)], schema()))
    shrunk = dataclasses.replace(
        old,
        coders=(
            dataclasses.replace(old.coders[0], vocabulary=pa.array(["a"]), counts=pa.array([2])),
            old.coders[1],
        ),
    )
    with pytest.raises(UserError, match="column 'c': has 1 values, fewer than the 2 of"):
        check_grown(old, shrunk)
    with pytest.raises(UserError, match="another schema"):
        check_grown(old, fit([rows(["a", "a", "b"])], schema(min_count=2)))


@pytest.fixture
def days(tmp_path):
    """Raw files of two days in Frappe's layout; the second has values that the first has not."""
    folders = []
    for day in range(2):
        folder = tmp_path / f"day{day}"
        folder.mkdir()
        click_logs.write_frappe(folder, SMALL, seed=day)
        path = folder / "train.csv"
        lines = path.read_text().splitlines()
        if day:
            lines[1:4] = [line.split(",")[0] + ",900" * 9 + ",901" for line in lines[1:4]]
        path.write_text("\n".join(lines) + "\n")
        folders.append(folder)
    return folders


def test_a_data_set_is_prepared_by_the_ids_of_another(days, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    prepare("frappe", first, source=days[0])
    folder = dataset_folder("frappe", first)
    options = BuildOptions(extend_from=str(folder))
    prepare("frappe", second, source=days[1], options=options)
    old, new = (Encoder.load(dataset_folder("frappe", out)) for out in (first, second))
    check_grown(old, new)
    assert sum(field_rows(new)) == sum(field_rows(old)) + 10
    assert new.coders[0].vocabulary.to_pylist()[-1] == 900
    (batch,) = PreparedData("frappe", second).batches("train", SMALL["train"])
    assert batch["ids"][0].tolist() == [dim - 1 for dim in field_rows(new)]
    # Prepared again it is the same one, and another encoder is noticed.
    before = {path: path.stat().st_mtime_ns for path in dataset_folder("frappe", second).iterdir()}
    prepare("frappe", second, source=days[1], options=options)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    with pytest.raises(UserError, match=r"prepared with extend_from=.*, not extend_from=None"):
        prepare("frappe", second, source=days[1])
    prepare("frappe", first, source=days[1], overwrite=True)
    with pytest.raises(UserError, match="prepared with extended_encoder="):
        prepare("frappe", second, source=days[1], options=options)
    made_of = json.loads((dataset_folder("frappe", second) / SOURCE_FILE).read_text())
    assert made_of["extended_encoder"] == old.fingerprint()


def test_mistakes_are_reported_before_rows_are_read(days, tmp_path):
    out = tmp_path / "out"
    prepare("frappe", out, source=days[0])
    folder = dataset_folder("frappe", out)
    (days[1] / "train.csv").write_text("no rows\n")
    with pytest.raises(UserError, match=r"encoder.json: no such file"):
        prepare("frappe", out, source=days[1], options=BuildOptions(extend_from=str(tmp_path)))
    for name, more, message in (
        ("frappe", {"min_count": 2}, r"has min_count=1, but here it has min_count=2"),
        ("avazu", {}, "another schema"),
    ):
        options = BuildOptions(extend_from=str(folder), **more)
        with pytest.raises(UserError, match=message):
            prepare(name, tmp_path / "other", source=days[1], options=options)
    with pytest.raises(UserError, match="is the data set that would be replaced"):
        prepare(
            "frappe",
            out,
            source=days[1],
            options=BuildOptions(extend_from=str(folder)),
            overwrite=True,
        )
    assert not (tmp_path / "other").exists()


def test_rows_without_a_source_notice_another_encoder_too(tmp_path):
    options = BuildOptions(extend_from=str(tmp_path))
    made_of = []
    for values in (["a"], ["b"]):
        fit([rows(values)], schema()).save(tmp_path)
        made_of.append(origin(options, None))
    assert [*made_of[0]] == ["extended_encoder"]
    assert made_of[0] != made_of[1]
    assert origin(BuildOptions(), None) == {}
