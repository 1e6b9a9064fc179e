"""The benchmarks' workload, and tiny runs of them; nothing here is timed."""

import json
import sys
from importlib import import_module

import numpy as np
import pyarrow.parquet as pa_parquet
import pytest

from deepfm_jax.datasets.criteo import Criteo
from deepfm_jax.datasets.prepare import prepare
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.readers.sources import read_tables
from experiments.benchmarks import encoding_task, processes, simulated_files, workload
from tests.launchers import ROOT, mistake, run


def test_ids_are_local_to_their_field_and_follow_a_zipf_law():
    (ids,), (labels,) = workload.batches(39 * 50, 1, batch=20_000)
    assert ids.shape == (20_000, workload.FIELDS)
    assert ids.min() == 0
    assert ids.max() == 49
    assert abs(labels.mean() - 0.25) < 0.02
    weights = np.arange(1, 51) ** -1.05
    expected = weights / weights.sum()
    for field in (0, 17, 38):
        found = np.sort(np.bincount(ids[:, field], minlength=50))[::-1] / 20_000
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_hot_rows_lie_elsewhere_in_each_field():
    (ids,), _ = workload.batches(39 * 1000, 1, batch=5000)
    hottest = {int(np.bincount(column).argmax()) for column in ids.T}
    assert len(hottest) > 30


def test_the_first_batches_are_the_same_however_many_are_drawn():
    one, _ = workload.batches(39 * 100, 1, batch=64)
    three, _ = workload.batches(39 * 100, 3, batch=64)
    np.testing.assert_array_equal(one[0], three[0])


def test_the_train_step_benchmark_times_ours_and_leaves_its_files(tmp_path):
    done = run(
        "benchmarks.train_step", "--rows=3900", "--ours_rows=7800", "--steps=2", "--rounds=1",
        "--batch=64", "--systems=ours_adam_bf16,ours_dense_adam",
        f"--out={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "results.json").read_text())["figures"]
    assert {(f["system"], f["rows"]) for f in figures} == {
        (system, rows) for system in ("ours_adam_bf16", "ours_dense_adam") for rows in (3900, 7800)
    }
    assert all(f["examples_per_second"] > 0 for f in figures)
    assert (tmp_path / "train_step.png").read_bytes().startswith(b"\x89PNG")


def _figures(rates):
    return [
        {"system": system, "rows": 10, "batch": 4, "examples_per_second": rate}
        for system, rate in rates.items()
    ]


def test_ratios_are_against_the_fastest_of_the_named_peers():
    figures = _figures({"ours_a": 30.0, "slow": 10.0, "fast": 20.0, "other": 60.0})
    line = processes.ratio_line(figures, "ours_a", ("slow", "fast"))
    assert "1.50 at 10 rows, batch 4 (fast)" in line
    assert "not timed" in processes.ratio_line(figures, "ours_b", ("slow",))


def test_ours_in_bfloat16_is_compared_with_the_best_of_both_precisions_of_the_peers():
    figures = _figures({"ours_a": 30.0, "ours_a_bf16": 60.0, "p": 20.0, "p_bf16": 10.0, "q": 5.0})
    assert processes.ratio_lines(figures, "ours_a", ("p", "q")) == [
        "ours_a / p or q: 1.50 at 10 rows, batch 4 (p)",
        "ours_a_bf16 / p or p_bf16 or q or q_bf16: 3.00 at 10 rows, batch 4 (p)",
        "ours_a_bf16 / p_bf16 or q_bf16: 6.00 at 10 rows, batch 4 (p_bf16)",
    ]


def test_bfloat16_alone_has_a_line_only_where_it_was_timed_and_is_not_the_fastest():
    figures = _figures({"ours_a": 30.0, "ours_a_bf16": 60.0, "p": 20.0, "p_bf16": 40.0, "q": 5.0})
    assert processes.ratio_lines(figures, "ours_a", ("p",)) == [
        "ours_a / p: 1.50 at 10 rows, batch 4",
        "ours_a_bf16 / p or p_bf16: 1.50 at 10 rows, batch 4 (p_bf16)",
    ]
    assert processes.ratio_lines(figures, "ours_a", ("q",)) == [
        "ours_a / q: 6.00 at 10 rows, batch 4",
        "ours_a_bf16 / q or q_bf16: 12.00 at 10 rows, batch 4 (q)",
    ]


# FBGEMM's CPU build warns about each operator that it lacks.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("system", "package"),
    [
        ("torch_adam", "torch"),
        ("torch_sparse_adam", "torch"),
        ("torch_tower", "torch"),
        ("torch_scoring", "torch"),
        ("deepctr", "deepctr_torch"),
        ("fuxictr", "fuxictr"),
        ("fbgemm", "fbgemm_gpu"),
        ("fbgemm_one_table", "fbgemm_gpu"),
    ],
)
def test_a_peer_multiplies_its_current_weights_in_the_dtype_of_its_name(
    system, package, dtype, monkeypatch
):
    torch = pytest.importorskip("torch")
    pytest.importorskip(package)
    monkeypatch.syspath_prepend(ROOT / "experiments" / "benchmarks")
    models, libraries = (import_module(name) for name in ("torch_models", "torch_libraries"))
    products = []

    def compare(layer, inputs, outputs):
        if isinstance(layer, torch.nn.Linear):
            operands = [inputs[0], *layer.parameters()]
            assert operands[1].dtype == torch.float32
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                rounded = [operand.to(getattr(torch, dtype)) for operand in operands]
                expected = torch.nn.functional.linear(*rounded)
            torch.testing.assert_close(outputs.detach(), expected, rtol=0, atol=0)
            products.append(outputs.dtype)

    ids, labels = workload.batches(39 * 20, 3, batch=8)
    run = models.Run(20, ids, labels, 1, torch.device("cpu"), dtype == "bfloat16")
    hook = torch.nn.modules.module.register_module_forward_hook(compare)
    try:
        times = libraries.SYSTEMS[system](run)()
    finally:
        hook.remove()
    assert len(times["step_seconds"]) == 2
    assert products == 3 * 4 * [getattr(torch, dtype)]


def test_a_python_of_the_peers_that_is_not_there_is_named():
    message = mistake("benchmarks.train_step", "--peer_python=none/python")
    assert "--peer_python=none/python: no such file" in message


def test_the_input_pipeline_benchmark_prepares_reads_and_trains(tmp_path):
    done = run(
        "benchmarks.input_pipeline", "--rows=20000", "--fewer_rows=10000", "--steps=2",
        "--rounds=1", f"--out={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(f["system"], f["rows"]) for f in results["prepare"]] == [
        ("ours_prepare", 20_000),
        ("ours_prepare", 10_000),
    ]
    assert results["read"]["rows"] == 16_000
    assert results["read"]["rows_per_second"] > 0
    assert 0 <= results["train"]["waiting_share"] < 1
    assert not (tmp_path / "files").exists()


def test_the_simulated_files_are_criteos_layout_with_and_without_a_header(tmp_path):
    simulated_files.write_files(tmp_path, 1000)
    for split, rows in (("train", 800), ("valid", 100), ("test", 100)):
        plain = (tmp_path / f"{split}.tsv").read_bytes()
        headed = (tmp_path / f"{split}.csv").read_bytes()
        assert headed == "\t".join(encoding_task.COLUMNS).encode() + b"\n" + plain
        (table,) = read_tables(tmp_path / f"{split}.tsv", Criteo.SCHEMA)
        assert table.num_rows == rows


def test_pandas_and_polars_encode_as_prepare_does(tmp_path):
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    source = tmp_path / "source"
    source.mkdir()
    simulated_files.write_files(source, 5000)
    prepare("criteo", tmp_path / "ours", source=source)
    data = PreparedData("criteo", tmp_path / "ours")
    for script in ("pandas_prepare.py", "polars_prepare.py"):
        out = tmp_path / script
        out.mkdir()
        processes.run(
            [script, f"--source={source}", f"--out={out}"], "peer", "default", sys.executable
        )
        for split in encoding_task.FILES:
            (ours,) = data.batches(split, data.rows(split))
            theirs = pa_parquet.read_table(out / f"{split}.parquet")
            assert theirs.column_names == encoding_task.COLUMNS
            ids = np.stack([theirs[name].to_numpy() for name in theirs.column_names[1:]], axis=1)
            np.testing.assert_array_equal(ids, ours["ids"])
            np.testing.assert_array_equal(theirs["label"].to_numpy(), ours["labels"][:, 0])
