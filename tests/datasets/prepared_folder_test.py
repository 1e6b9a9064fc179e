import concurrent.futures
import json
import os
import pathlib
import time

import pytest

from deepfm_jax import UserError
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, prepare
from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.files import only_writer
from deepfm_jax.input.pipeline import PreparedData
from tests import click_logs
from tests.encoders import field_rows


def nothing_left(out):
    """Asserts that there is no data set, complete or partial."""
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
    assert field_rows(encoder) == (1,) * 10
    click_logs.write_frappe(source, click_logs.SMALL, seed=5)
    changed = prepare("frappe", out, source=source, options=options, overwrite=True)
    assert changed["train"].fingerprint != summaries["train"].fingerprint
    rows = sum(int(b["mask"].sum()) for b in PreparedData("frappe", out).batches("train", 8))
    assert rows == 60


def test_only_the_data_set_is_left_in_its_folder(source, out):
    (source / "train.csv").rename(source / "kept.csv")
    with pytest.raises(UserError, match="no file for split 'train'"):
        prepare("frappe", out, source=source)
    assert not out.exists()
    (source / "kept.csv").rename(source / "train.csv")
    prepare("frappe", out, source=source)
    assert [path.name for path in out.iterdir()] == ["frappe"]
    assert list((out / "frappe").iterdir()) == [dataset_folder("frappe", out)]


LEFT = (
    "frappe/incomplete.ABC123_1.0.0",
    ".frappe.prepare-abc",
    # Left by versions that used no distinct names for these folders.
    ".frappe.a1b2c3_4/frappe/incomplete.XYZ789_1.0.0",
    ".frappe.abcdefgh/replaced",
)
OTHERS = (
    ".criteo.prepare-abc",
    ".frappe.backup",
    ".frappe.20240101/frappe/1.0.0",
    ".frappe.20240102/notes",
    ".frappe.abcdef00",
    "frappe/incomplete.notes",
)


def leave(out, folders):
    for folder in folders:
        (out / folder).mkdir(parents=True)
        (out / folder / "frappe-train.array_record-00000-of-00001").touch()


@pytest.mark.parametrize("how", ["first", "overwrite", "reuse"])
def test_remains_of_a_killed_process_are_removed_by_the_next(source, out, how):
    if how != "first":
        prepare("frappe", out, source=source)
    leave(out, (*LEFT, *OTHERS))
    if how == "first":  # Without a new data set, the old one is restored.
        (out / ".frappe.abcdefgh" / "replaced").rename(out / ".frappe.prepare-abc" / "gone")
        (out / ".frappe.abcdefgh").rmdir()
    prepare("frappe", out, source=source, overwrite=how == "overwrite")
    assert not [name for name in LEFT if (out / name.split("/f")[0]).exists()]
    assert [name for name in OTHERS if not (out / name).exists()] == []
    assert PreparedData("frappe", out).rows("train") == click_logs.SMALL["train"]


def test_files_of_a_running_process_are_not_removed(source, out):
    prepare("frappe", out, source=source)
    leave(out, LEFT)
    with only_writer(out / "frappe"):
        prepare("frappe", out, source=source)
    assert all((out / name).exists() for name in LEFT)


def test_a_second_process_waits_and_reuses_the_data_set(source, out, tmp_path, capsys):
    there = prepare("frappe", tmp_path / "other", source=source)
    capsys.readouterr()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with only_writer(out / "frappe"):
            waiting = pool.submit(prepare, "frappe", out, source=source)
            while not (err := capsys.readouterr().err):
                assert not waiting.done()
                time.sleep(0.01)
            assert err == f"{out / 'frappe'}: another process is writing there; waiting for it\n"
            os.replace(dataset_folder("frappe", tmp_path / "other"), dataset_folder("frappe", out))
        assert waiting.result() == there


def test_a_killed_replacement_loses_no_data_set(source, out, monkeypatch):
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
    # The state that a process killed at this point leaves.
    for name in (".frappe.prepare-abc", ".frappe.abcdefgh"):
        (out / name).mkdir()
        folder.rename(out / name / "replaced")
        with monkeypatch.context() as whole:
            whole.setattr(os, "replace", replace)
            assert prepare("frappe", out, source=source) == before
        assert not (out / name).exists()


def test_a_failed_overwrite_keeps_the_old_data_set(source, out):
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
    with pytest.raises(UserError, match="name them with --source"):
        prepare("frappe", out)
    with pytest.raises(UserError, match="no such folder"):
        prepare("frappe", out, source=tmp_path / "none")
    (source / "valid.csv").unlink()
    with pytest.raises(UserError, match=r"no file for split 'valid'; looked for valid\.csv"):
        prepare("frappe", out, source=source)
    assert nothing_left(out)


def test_two_files_for_one_split_are_refused(source, out):
    (source / "train.csv.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"both train.csv and train.csv.gz; keep one"):
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
    with pytest.raises(UserError, match="'usr' is not a categorical or numeric column; use one of"):
        prepare("frappe", out, source=source, options=BuildOptions(crosses=(("item", "usr"),)))


def test_an_option_newer_than_the_data_set_had_its_default(source, out):
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
    with pytest.raises(
        UserError, match=r"options\.json has option 'colour'.*a newer version wrote it"
    ):
        prepare("frappe", out, source=source)
    prepare("frappe", out, source=source, overwrite=True)
    assert "colour" not in path.read_text()


def test_a_folder_of_something_else_is_left_alone(source, out):
    folder = dataset_folder("frappe", out)
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="not a data set written by prepare"):
        prepare("frappe", out, source=source)
    assert (folder / "mine.txt").read_text() == "precious"
