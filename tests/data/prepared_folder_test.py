import json
import os
import pathlib

import pytest

from deepfm_jax import (
    UserError,
)
from deepfm_jax.data.builders.options import BuildOptions
from deepfm_jax.data.encoder import Encoder
from deepfm_jax.data.pipeline import PreparedData
from deepfm_jax.data.prepare import dataset_folder, prepare
from deepfm_jax.files import only_writer
from tests import click_logs


def nothing_left(out):
    """No data set, whole or half-written."""
    return not [path for path in out.rglob("*") if path.is_file()]


def test_a_prepared_set_is_reused_and_other_options_are_refused(source, out):
    prepare("frappe", out, source=source)
    folder = dataset_folder("frappe", out)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    prepare("frappe", out, source=source)
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(UserError, match="prepared with min_count=None, not min_count=3"):
        prepare("frappe", out, source=source, options=BuildOptions(min_count=3))


def test_overwrite_replaces_it(source, out):
    prepare("frappe", out, source=source)
    options = BuildOptions(min_count=30)
    summaries = prepare("frappe", out, source=source, options=options, overwrite=True)
    assert summaries["train"].rows == 60
    encoder = Encoder.load(dataset_folder("frappe", out))
    assert encoder.field_dims == (1,) * 10
    click_logs.write_frappe(source, click_logs.SMALL, seed=5)
    changed = prepare("frappe", out, source=source, options=options, overwrite=True)
    assert changed["train"].fingerprint != summaries["train"].fingerprint
    rows = sum(int(b["mask"].sum()) for b in PreparedData("frappe", out).batches("train", 8))
    assert rows == 60


def test_nothing_but_the_data_set_is_left_in_its_folder(source, out):
    (source / "train.csv").rename(source / "kept.csv")
    with pytest.raises(UserError, match="no file for split 'train'"):
        prepare("frappe", out, source=source)
    assert not out.exists()
    (source / "kept.csv").rename(source / "train.csv")
    prepare("frappe", out, source=source)
    assert [path.name for path in out.iterdir()] == ["frappe"]
    assert list((out / "frappe").iterdir()) == [dataset_folder("frappe", out)]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_killed_process_left_is_cleared_up_by_the_next(source, out, overwrite):
    if overwrite:
        prepare("frappe", out, source=source)
    left = [out / "frappe" / "incomplete.ABC_1.0.0", out / ".frappe.abc", out / ".criteo.abc"]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "frappe-train.array_record-00000-of-00001").touch()
    prepare("frappe", out, source=source, overwrite=overwrite)
    assert [folder.exists() for folder in left] == [False, False, True]
    assert PreparedData("frappe", out).rows("train") == click_logs.SMALL["train"]


def test_two_do_not_prepare_one_data_set_at_once(source, out):
    with (
        only_writer(out / "frappe"),
        pytest.raises(UserError, match="frappe: another process is writing there; wait"),
    ):
        prepare("frappe", out, source=source)
    prepare("frappe", out, source=source)


def test_a_data_set_is_not_lost_between_the_old_and_the_new(source, out, monkeypatch):
    before = prepare("frappe", out, source=source)
    folder, replace = out / "frappe" / "1.0.0", os.replace

    def stopped(old, new):
        if pathlib.Path(new) == folder and "replaced" not in str(old):
            raise SystemExit
        replace(old, new)

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(SystemExit):
        prepare("frappe", out, source=source, overwrite=True)
    assert prepare("frappe", out, source=source) == before
    # What a process that was killed there leaves.
    (out / ".frappe.abc").mkdir()
    folder.rename(out / ".frappe.abc" / "replaced")
    monkeypatch.undo()
    assert prepare("frappe", out, source=source) == before
    assert not (out / ".frappe.abc").exists()


def test_a_failed_overwrite_keeps_what_was_there(source, out):
    prepare("frappe", out, source=source)
    fingerprint = PreparedData("frappe", out).fingerprint
    (source / "valid.csv").write_text("label\n1\n")
    with pytest.raises(UserError, match="column 'user' is missing"):
        prepare("frappe", out, source=source, overwrite=True)
    assert PreparedData("frappe", out).fingerprint == fingerprint


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_bad_row_stops_it_and_leaves_nothing(source, out, split):
    path = source / f"{split}.csv"
    lines = path.read_text().splitlines()
    lines[4] = lines[4].replace(",", ",x", 1)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"{split}.csv, line 5, column user: value 'x\d+' is not"):
        prepare("frappe", out, source=source)
    assert nothing_left(out)
    summaries = prepare("frappe", out, source=source, options=BuildOptions(max_bad_rows=1))
    rejected = {name: summary.rejected for name, summary in summaries.items()}
    assert rejected == {**dict.fromkeys(click_logs.SMALL, 0), split: 1}
    assert "line 5" in summaries[split].first_errors[0]
    assert summaries[split].rows == click_logs.SMALL[split] - 1


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_of_one_class_is_refused(source, out, split):
    path = source / f"{split}.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *("1" + line[1:] for line in lines[1:])]) + "\n")
    with pytest.raises(
        UserError, match=rf"split '{split}': all {click_logs.SMALL[split]} labels are 1"
    ):
        prepare("frappe", out, source=source)
    assert nothing_left(out)


def test_missing_things_are_named(source, out, tmp_path):
    with pytest.raises(UserError, match="'frape' is unknown; use one of"):
        prepare("frape", out, source=source)
    with pytest.raises(UserError, match="say where with --source"):
        prepare("frappe", out)
    with pytest.raises(UserError, match="no such folder"):
        prepare("frappe", out, source=tmp_path / "none")
    (source / "valid.csv").unlink()
    with pytest.raises(UserError, match=r"no file for split 'valid'; looked for valid\.csv"):
        prepare("frappe", out, source=source)
    assert nothing_left(out)


def test_two_files_for_one_split_are_refused(source, out):
    (source / "train.csv.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"as train.csv and train.csv.gz; keep one"):
        prepare("frappe", out, source=source)


def test_crosses_of_a_prepared_set_are_compared_as_data(source, out):
    options = BuildOptions(crosses=(("item", "user"),))
    prepare("frappe", out, source=source, options=options)
    path = dataset_folder("frappe", out) / "options.json"
    before = path.stat().st_mtime_ns
    from_json = BuildOptions(**json.loads(path.read_text()))
    assert from_json == options
    prepare("frappe", out, source=source, options=from_json)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"with crosses=\(\('item', 'user'\),\), not crosses=\(\)"):
        prepare("frappe", out, source=source)
    with pytest.raises(UserError, match="'usr' is not a categorical or numeric column; those are"):
        prepare("frappe", out, source=source, options=BuildOptions(crosses=(("item", "usr"),)))


def test_an_option_younger_than_the_data_set_had_its_default(source, out):
    prepare("frappe", out, source=source)
    path = dataset_folder("frappe", out) / "options.json"
    written = json.loads(path.read_text())
    del written["crosses"], written["cross_buckets"]
    path.write_text(json.dumps(written))
    prepare("frappe", out, source=source)
    with pytest.raises(UserError, match="was prepared with cross_buckets=100000"):
        prepare("frappe", out, source=source, options=BuildOptions(cross_buckets=9))


def test_an_option_of_a_newer_version_is_named(source, out):
    prepare("frappe", out, source=source)
    path = dataset_folder("frappe", out) / "options.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "red"}))
    with pytest.raises(UserError, match=r"options\.json has option 'colour'.*of a newer one"):
        prepare("frappe", out, source=source)
    prepare("frappe", out, source=source, overwrite=True)
    assert "colour" not in path.read_text()


def test_a_folder_of_something_else_is_left_alone(source, out):
    folder = dataset_folder("frappe", out)
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="not a data set that prepare made"):
        prepare("frappe", out, source=source)
    assert (folder / "mine.txt").read_text() == "precious"
