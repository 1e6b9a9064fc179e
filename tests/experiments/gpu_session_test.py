"""The GPU session: it runs on a CPU too, and keeps its results when it is cut off."""

import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.benchmarks import gpu_checks, gpu_report, gpu_workload
from experiments.benchmarks.workload import EMBED_DIM, FIELDS, MLP_DIMS
from tests.launchers import ROOT

# Packages that an image for GPUs usually lacks.
ABSENT = ("tensorflow", "tensorflow_datasets", "clu", "ml_collections")


@pytest.fixture
def without_tensorflow(tmp_path, monkeypatch):
    """Hides the packages of ``ABSENT`` from processes that start from here."""
    for name in ABSENT:
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name}')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def session(out, *flags):
    command = [sys.executable, "-m", "experiments.benchmarks.gpu_session", "--small"]
    return [*command, f"--out={out}", *flags]


def test_steps_and_profile_need_none_of_what_an_image_for_gpus_lacks(without_tensorflow, tmp_path):
    out = tmp_path / "out"
    done = subprocess.run(
        session(out, "--parts", "speed", "profile"),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads((out / "results.json").read_text())
    ours = [record for record in records if record["part"] == "speed"]
    assert {(r["optimizer"], r["precision"], r["sums"]) for r in ours} == {
        *((o, p, "sort") for o in ("adam", "rowwise_adagrad") for p in gpu_workload.PRECISIONS),
        ("adam", "bfloat16", "slot_map"),
        ("rowwise_adagrad", "bfloat16", "slot_map"),
    }
    assert all(record["milliseconds"] > 0 < record["gigaflops"] for record in ours)
    profiles = [record for record in records if record["part"] == "profile"]
    assert all(len(record["kernels"]) == 5 for record in profiles)
    parts = {record["part"] for record in records}
    assert parts == {"rates", "speed", "profile", "copies", "scoring"}
    assert (out / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert "times the floor" in done.stdout
    assert (out / "report.txt").read_text().strip() in done.stdout


def test_a_part_that_fails_is_named_and_so_is_a_peer_that_is_absent(tmp_path):
    def records_of_peers(python, status):
        flags = session(tmp_path / "out", "--parts", "peers", f"--peer_python={python}")
        done = subprocess.run(flags, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads((tmp_path / "out" / "results.json").read_text())

    assert [record["part"] for record in records_of_peers("/bin/false", 1)] == ["failed"]
    found = records_of_peers(sys.executable, 0)
    if importlib.util.find_spec("torch") is None:
        assert found == [{"part": "skipped", "name": "peers", "reason": "No module named 'torch'"}]
    else:
        assert {record["system"] for record in found} == {"torch_adam", "torch_sparse_adam"}
        assert all(record["milliseconds"] > 0 for record in found)


def test_a_session_that_is_ended_keeps_its_results_and_writes_its_report(tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(session(out, "--parts", "speed"), cwd=ROOT, stdout=subprocess.PIPE)
    try:
        while not (out / "results.json").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.stdout.close()
    assert json.loads((out / "results.json").read_text())[0]["part"] == "rates"
    assert "TFLOP/s" in (out / "report.txt").read_text()
    assert (out / "speed.png").is_file()


def test_a_part_whose_time_is_up_says_what_it_left_out(tmp_path):
    out = tmp_path / "out"
    flags = session(out, "--parts", "checks", "--seconds=1")
    subprocess.run(flags, cwd=ROOT, capture_output=True, check=True, env=os.environ)
    (skipped,) = [
        record
        for record in json.loads((out / "results.json").read_text())
        if record["part"] in ("skipped", "cut")
    ]
    assert "the time was up" in skipped["reason"]


def test_a_check_passes_within_what_it_allows_alone():
    def found(difference, allowed=1e-3):
        return gpu_checks.outcome(lambda: gpu_checks.Found(difference, allowed, "a note"))

    assert found(1e-3)["passed"] is True
    assert found(2e-3)["passed"] is False
    assert found(np.nan)["passed"] is False
    assert found(2e-3, None)["passed"] is None

    def fails():
        raise ValueError("one line\nand another")

    assert gpu_checks.outcome(fails) == {"passed": False, "note": "ValueError: one line"}


def test_a_wrong_model_does_not_pass(monkeypatch):
    assert gpu_checks.outcome(lambda: gpu_checks.model_variant("fm"))["passed"]
    reference = gpu_checks.model_variants.reference
    monkeypatch.setattr(
        gpu_checks.model_variants, "reference", lambda *arguments: 1.001 * reference(*arguments)
    )
    assert not gpu_checks.outcome(lambda: gpu_checks.model_variant("fm"))["passed"]


def test_the_floor_is_products_and_bytes_at_the_device_s_rates():
    attained = {"float32": 1e12, "bfloat16": 1e13, "bytes": 1e12}
    widths = [FIELDS * EMBED_DIM, *MLP_DIMS, 1]
    products = 6 * 100 * sum(a * b for a, b in itertools.pairwise(widths))
    rows = 4 * (5 * 100 * FIELDS * 17 + 50 * (3 * 17 + 2 * 2))
    activations = 5 * 4 * 100 * sum(MLP_DIMS)
    found = gpu_workload.floor_milliseconds(100, 50, "float32", "rowwise_adagrad", attained)
    assert found == pytest.approx(1e3 * (products + rows + activations) / 1e12)
    in_bfloat16 = gpu_workload.floor_milliseconds(100, 50, "bfloat16", "adam", attained)
    rows = 4 * (5 * 100 * FIELDS * 17 + 50 * (3 * 17 + 2 * 34))
    expected = products / 1e13 + (rows + activations / 2) / 1e12
    assert in_bfloat16 == pytest.approx(1e3 * expected)


def test_a_report_can_be_made_of_nothing():
    assert gpu_report.text([]) == ""
    assert gpu_report.plot([])
