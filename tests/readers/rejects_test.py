"""What becomes of bad rows, and of a preparation that cannot be finished."""

import errno
import gzip
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from deepfm_jax import UserError
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import dataset_folder, describe, prepare
from deepfm_jax.encoding.encoder import Encoder
from tests import click_logs

ROOT = pathlib.Path(__file__).parents[2]
ESCAPES = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r", "\\0": "\0"}


def change_line(path, number, change):
    lines = path.read_text().splitlines()
    lines[number - 1] = change(lines[number - 1])
    path.write_text("\n".join(lines) + "\n")
    return lines[number - 1]


def test_every_rejected_row_is_written_with_its_place_and_fault(source, out):
    train, test = source / "train.csv", source / "test.csv"
    torn = change_line(train, 3, lambda line: line[:5])
    spoilt = change_line(train, 9, lambda line: line.replace(",", ",x\\", 1))
    broken = change_line(test, 4, lambda line: "2" + line[1:])
    options = BuildOptions(max_bad_rows=2)
    summaries = prepare("frappe", out, source=source, options=options)
    assert {split: s.rejected for split, s in summaries.items()} == {
        "train": 2, "valid": 0, "test": 1,
    }  # fmt: skip
    for split, summary in summaries.items():
        assert summary.read == click_logs.SMALL[split] == summary.rows + summary.rejected
    folder = dataset_folder("frappe", out)
    header, *rows = (folder / "rejects.tsv").read_text().splitlines()
    assert header.split("\t") == ["split", "file", "line", "column", "value", "fault", "text"]
    width = len(torn.split(","))
    user = spoilt.split(",")[1].replace("\\", "\\\\")
    assert [row.split("\t") for row in rows] == [
        ["train", str(train), "3", "", "", f"{width} columns instead of 11 in {torn!r}", torn],
        ["train", str(train), "9", "user", user, "is not an integer",
         spoilt.replace("\\", "\\\\")],
        ["test", str(test), "4", "label", "2", "is not a label, 0 or 1", broken],
    ]  # fmt: skip
    text = describe(summaries, Encoder.load(folder), folder)
    assert f"all rejected rows are in {folder}/rejects.tsv" in text


def test_without_bad_rows_there_is_no_such_file(source, out):
    summaries = prepare("frappe", out, source=source, options=BuildOptions(max_bad_rows=5))
    folder = dataset_folder("frappe", out)
    assert not (folder / "rejects.tsv").exists()
    assert "rejects.tsv" not in describe(summaries, Encoder.load(folder), folder)


def test_a_line_is_a_row_whatever_its_cells_hold(source, out):
    spoilt = change_line(source / "valid.csv", 2, lambda line: line + ',"tab\there\nand\\ \0"')
    prepare("frappe", out, source=source, options=BuildOptions(max_bad_rows=1))
    _, row = (dataset_folder("frappe", out) / "rejects.tsv").read_text().splitlines()
    text = row.split("\t")[-1]
    for written, meant in ESCAPES.items():
        text = text.replace(written, meant)
    assert text == spoilt


def test_a_row_of_criteo_that_is_drawn_into_no_split_is_written_once(tmp_path, out):
    lines = click_logs.criteo_lines(500)
    lines[10] = "1\t2"
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    prepare("criteo", out, source=tmp_path, options=BuildOptions(max_bad_rows=1))
    _, row = (dataset_folder("criteo", out) / "rejects.tsv").read_text().splitlines()
    assert row.split("\t")[2] == "11"


def files_of(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_truncated_file_leaves_nothing(source, out, split):
    path = source / f"{split}.csv"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    path.with_name(f"{split}.csv.gz").write_bytes(packed[:-10])
    with pytest.raises(UserError, match=rf"{split}.csv.gz: cannot be read .*truncated"):
        prepare("frappe", out, source=source)
    assert not files_of(out)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("Failed to finalize: write() failed: No space left on device; at byte 9"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_what_was_there(source, out, monkeypatch, error):
    def fail(*_):
        raise error

    before = prepare("frappe", out, source=source)
    monkeypatch.setattr(Encoder, "save", fail)
    for place, overwrite in ((out, True), (out.with_name("other"), False)):
        with pytest.raises(UserError, match="no space left on the disk") as raised:
            prepare("frappe", place, source=source, overwrite=overwrite)
        assert "\n" not in str(raised.value)
    assert prepare("frappe", out, source=source) == before
    assert not files_of(out.with_name("other"))


@pytest.mark.parametrize("size", ["8k", "40k", "200k"])
def test_a_disk_that_is_really_full_leaves_nothing(tmp_path, size):
    small = tmp_path / "disk"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        source = tmp_path / "source"
        source.mkdir()
        click_logs.write_frappe(source, {**click_logs.SMALL, "train": 20_000})
        with pytest.raises(UserError, match="no space left on the disk"):
            prepare("frappe", small, source=source)
        assert not files_of(small)
    finally:
        subprocess.run(["umount", str(small)], check=True)


# Whoever runs the tests may ignore signals, as a script does for what it puts in the background.
WITH_SIGNALS = """\
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=str
)
def test_a_signal_leaves_nothing(tmp_path, number, status):
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-c", WITH_SIGNALS, sys.executable, "-m", "experiments.prepare"),
        *("--dataset=synthetic", "--rows=50000000", f"--out={out}"),
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 120
        while not list(out.glob("synthetic/incomplete*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert b"Traceback" not in errors
    assert not files_of(out)
    assert not list(out.glob("synthetic/*"))
