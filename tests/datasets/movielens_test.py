"""MovieLens in the layouts of its releases: histories, and no leaks between splits."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from deepfm_jax import UserError
from deepfm_jax.datasets import MovieLens
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, describe, prepare
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.readers.sources import typed_table
from deepfm_jax.schema import Cross
from tests import click_logs
from tests.encoders import field_rows

SPLITS = ("train", "valid", "test")
USERS = ("age", "gender", "occupation", "zip_area")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def by_hand(ratings, most=50):
    """Label and history of each rating, by a loop over all ratings."""
    found = []
    for user, _, value, time in ratings:
        past = [r for r in ratings if r[0] == user and r[3] < time and r[2] > 3]
        past.sort(key=lambda rating: rating[3])  # Stable.
        found.append((float(value > 3), [item for _, item, _, _ in past][-most:]))
    return found


def movie(item, release):
    """Year and genres of a simulated movie; see ``write_movielens``."""
    flags = np.random.default_rng(0).random((40, 4)) < 0.4
    names = ("unknown", "Action", "Comedy", "Film-Noir")
    year = None if item == 7 else 1990 + item % 7
    return year, [name for name, flag in zip(names, flags[item - 1], strict=True) if flag]


@pytest.mark.parametrize(
    ("release", "packed"), [("100K", ""), ("100K", ".gz"), ("1M", ""), ("20M", ".gz")]
)
def test_a_release_is_read_in_its_layout(source, out, release, packed):
    ratings = click_logs.write_movielens(source, release, packed=packed)
    prepare("movielens", out, source=source)
    data = PreparedData("movielens", out)
    schema = data.encoder.schema
    has_users = release != "20M"
    assert {field.name for field in schema.fields} >= {"user", "item", "year", "genres", "history"}
    assert all((name in schema.slot_names) == has_users for name in USERS)
    rows = []
    for (user, item, _, time), (label, past) in zip(ratings, by_hand(ratings), strict=True):
        year, genres = movie(item, release)
        row = {"label": label, "user": user, "item": item, "year": year, "genres": genres}
        row |= {"timestamp": time, "history": past}
        if has_users:
            row |= {"age": 18 + user, "gender": "MF"[user % 2], "zip_area": "980"}
            row["occupation"] = ("artist", "doctor", "other")[user % 3]
        rows.append(row)
    times = np.array([rating[3] for rating in ratings])
    begin = 0
    for split in SPLITS:
        count = data.rows(split)
        span = np.sort(times)[begin : begin + count]
        begin += count
        inside = (span[0] <= times) & (times <= span[-1])
        assert inside.sum() == count  # Rows with the same time stay together.
        chosen = [row for row, is_inside in zip(rows, inside, strict=True) if is_inside]
        expected = data.encoder.encode(typed_table(pa.Table.from_pylist(chosen), schema))
        (batch,) = data.batches(split, count)
        for name in ("ids", "values", "labels"):
            np.testing.assert_array_equal(batch[name], getattr(expected, name))
    assert begin == len(ratings)


def test_the_hour_and_the_weekday_are_those_of_the_rating(source, out):
    ratings = click_logs.write_movielens(source, "20M")
    prepare("movielens", out, source=source)
    encoder = PreparedData("movielens", out).encoder
    names = [field.name for field in encoder.schema.fields]
    when = [datetime.datetime.fromtimestamp(rating[3], datetime.UTC) for rating in ratings]
    hours = encoder.coders[names.index("timestamp_hour")].vocabulary.to_pylist()
    assert set(hours) <= {each.hour for each in when}
    weekdays = encoder.coders[names.index("timestamp_weekday")].vocabulary.to_pylist()
    assert set(weekdays) <= {each.weekday() for each in when}


def test_items_share_a_vocabulary_and_an_empty_history_has_its_own_id(source, out):
    ratings = click_logs.write_movielens(source, "1M")
    prepare("movielens", out, source=source, options=BuildOptions(history_length=3))
    data = PreparedData("movielens", out)
    encoder = data.encoder
    item, history = (
        [field.name for field in encoder.schema.fields].index(name) for name in ("item", "history")
    )
    spec = encoder.features[history]
    assert (spec.rows, spec.slots, spec.shared_with) == (field_rows(encoder)[item], 3, item)
    (batch,) = data.batches("train", data.rows("train"))
    slots = encoder.schema.field_slots
    ids = batch["ids"][:, slots[history]]
    values = batch["values"][:, slots[history]]
    first = min(ratings, key=lambda rating: rating[3])
    assert not any(past for _, past in by_hand([first]))
    assert (ids[:, 0] == 1).any()  # Some have no history yet, but no item is missing.
    assert (batch["ids"][:, slots[item]] != 1).all()
    np.testing.assert_array_equal(values, ids != -1)
    text = describe(data.summaries, encoder)
    assert "history shared with item in 3 slots" in text
    assert (
        f"{sum(c.dim for n, c in enumerate(encoder.coders) if n != history):,} table rows" in text
    )


def test_rejected_rows_are_reported_once(source, out):
    click_logs.write_movielens(source, "1M")
    path = source / "ratings.dat"
    lines = path.read_text().splitlines()
    lines[4] = lines[4].replace("::", "::x", 1)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(
        UserError, match=r"ratings.dat, line 5, column item: value 'x\d+' is not an"
    ):
        prepare("movielens", out, source=source)
    summaries = prepare("movielens", out, source=source, options=BuildOptions(max_bad_rows=1))
    assert sum(summary.rejected for summary in summaries.values()) == 1
    assert sum(summary.read for summary in summaries.values()) == 600
    (rejects,) = out.rglob("rejects.tsv")
    assert len(rejects.read_text().splitlines()) == 2


def cut(path, line, cells):
    lines = path.read_text().splitlines()
    lines[line - 1] = cells
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("release", "spoil", "message"),
    [
        ("1M", lambda f: (f / "movies.dat").unlink(), "movies.dat is missing"),
        ("1M", lambda f: (f / "ratings.dat").unlink(), "holds none of u.data, ratings.dat"),
        ("1M", lambda f: (f / "u.data").touch(), "holds u.data, ratings.dat; keep one release"),
        ("1M", lambda f: cut(f / "movies.dat", 3, "3::Up"),
         "movies.dat, line 3: 2 cells instead of 3 in '3|Up'"),
        ("1M", lambda f: cut(f / "users.dat", 2, "2::M::old::1::0"),
         "users.dat, line 2: 'old' is not a whole number"),
        ("1M", lambda f: (f / "users.dat").write_text("1::M::20::1::0\n"),
         r"ratings.dat refers to user \d+, which users.dat does not have"),
        ("20M", lambda f: (f / "movies.csv").write_text("movieId,title,genres\n1,A (1990),B\n"),
         r"refers to movie \d+, which movies.csv does not have; are they from the same"),
        ("20M", lambda f: (f / "movies.csv").write_text("id,title\n1,A\n"),
         "movies.csv, line 1: has id, title, not movieId, title, genres"),
        ("20M", lambda f: cut(f / "ratings.csv", 3, "4,5,,880000000"), "1 ratings have no rating"),
        ("100K", lambda f: (f / "u.genre").unlink(), "u.genre is missing"),
        ("100K", lambda f: (f / "u.item").write_text(""), "u.item: the file is empty"),
    ],
)  # fmt: skip
def test_faults_of_the_files_are_reported(source, out, release, spoil, message):
    click_logs.write_movielens(source, release)
    spoil(source)
    with pytest.raises(UserError, match=message):
        prepare("movielens", out, source=source)
    assert not [path for path in out.rglob("*") if path.is_file()]


def test_options_that_do_not_fit_movielens_are_refused(source, out):
    click_logs.write_movielens(source, "20M")
    with pytest.raises(UserError, match="rows of movielens are split by 'timestamp'; by any other"):
        prepare("movielens", out, source=source, options=BuildOptions(time_column="year"))
    with pytest.raises(UserError, match="'age' is not a categorical or numeric column"):
        prepare("movielens", out, source=source, options=BuildOptions(crosses=(("age", "item"),)))


def test_no_training_row_knows_a_later_label(source, out):
    """Flipping the labels of valid and test leaves the training examples unchanged."""
    ratings = click_logs.write_movielens(source, "20M")
    prepare("movielens", out, source=source)
    data = PreparedData("movielens", out)
    count = data.rows("train")
    (before,) = data.batches("train", count)
    end = sorted(rating[3] for rating in ratings)[count - 1]
    lines = ["userId,movieId,rating,timestamp"]
    for user, item, value, time in ratings:
        lines.append(f"{user},{item},{value if time <= end else 6 - value},{time}")
    (source / "ratings.csv").write_text("\n".join(lines) + "\n")
    prepare("movielens", out, source=source, overwrite=True)
    (after,) = PreparedData("movielens", out).batches("train", count)
    for name in ("ids", "values", "labels"):
        np.testing.assert_array_equal(before[name], after[name])


def test_a_cross_is_encoded_beside_multivalued_slots(source, out):
    click_logs.write_movielens(source, "100K")
    options = BuildOptions(crosses=(("gender", "occupation"),), cross_buckets=30)
    prepare("movielens", out, source=source, options=options)
    data = PreparedData("movielens", out)
    (batch,) = data.batches("test", data.rows("test"))
    assert batch["ids"].shape[1] == len(data.encoder.schema.slot_names)
    assert (batch["values"][:, -1] == 1).all()
    assert data.encoder.schema.crosses == (Cross(("gender", "occupation"), 30),)


def test_the_real_sample_is_read_completely(data_folder, out):
    if not (data_folder / "movielens").is_dir():
        pytest.skip(f"{data_folder} holds no movielens")
    summaries = prepare("movielens", out, source=data_folder / "movielens")
    rows = [summaries[split].rows for split in SPLITS]
    assert sum(rows) == 100_000
    np.testing.assert_allclose(rows, [80_000, 10_000, 10_000], rtol=0.01)
    assert round(sum(summary.positives for summary in summaries.values()) / 100_000, 3) == 0.554
    data = PreparedData("movielens", out)
    genres = next(c for c in data.encoder.coders if c.field.name == "genres")
    assert len(genres.vocabulary) == 19
    assert "Children's" in genres.vocabulary.to_pylist()
    assert summaries["train"].longer == {"genres": 0, "history": 0}
    assert len(MovieLens.SCHEMA.fields) == len(data.encoder.schema.fields) == 11


def test_an_encoder_of_a_release_without_users_grows(source, tmp_path):
    click_logs.write_movielens(source, "20M")
    prepare("movielens", tmp_path / "old", source=source)
    old = dataset_folder("movielens", tmp_path / "old")
    options = BuildOptions(extend_from=str(old))
    prepare("movielens", tmp_path / "new", source=source, options=options)
    assert PreparedData("movielens", tmp_path / "new").encoder.fingerprint() == (
        Encoder.load(old).fingerprint()
    )
