"""The launchers as a user runs them: processes, exit statuses, one line per mistake."""

import json
import platform
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from tests.launchers import ROOT, Launched, mistake, run

FRAPPE = "--config=frappe"
SMALL = (
    "--config.loop.batch_size=512",
    "--config.loop.checkpoint_steps=5",
    "--config.model.mlp_dims=(16, 8)",
    "--config.loop.patience=0",
)


def test_prepare_train_evaluate_and_predict(frappe_files, tmp_path):
    data, workdir, scored = tmp_path / "data", tmp_path / "run", tmp_path / "scored.csv"
    done = run("prepare", "--dataset=frappe", f"--source={frappe_files}", f"--out={data}")
    assert done.returncode == 0, done.stderr
    assert "10 fields, 210 table rows in all" in done.stdout
    results = json.loads(next(data.rglob("results.json")).read_text())
    assert results["splits"]["train"]["rows"] == 10_000

    flags = (FRAPPE, f"--config.data.folder={data}", f"--workdir={workdir}", *SMALL)
    done = run("train", *flags, "--config.loop.epochs=1")
    assert done.returncode == 0, done.stderr
    assert "epoch 1/1" in done.stderr
    results = json.loads((workdir / "results.json").read_text())
    auc = results["metrics"]["test"]["auc"]
    assert f"{auc:.5f}" in done.stdout

    done = run("evaluate", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    evaluated = json.loads((workdir / "evaluation_test.json").read_text())
    assert evaluated["metrics"]["test"]["auc"] == pytest.approx(auc, abs=1e-9)

    done = run(
        "predict", f"--workdir={workdir}", f"--input={frappe_files}/test.csv", f"--output={scored}"
    )
    assert done.returncode == 0, done.stderr
    assert "1,500 rows scored, 0 rejected" in done.stdout
    columns = pa_csv.read_csv(scored).to_pydict()
    assert roc_auc_score(columns["label"], columns["probability"]) == pytest.approx(auc, abs=1e-6)


def test_an_unknown_table_is_trained_on_by_three_commands(frappe_files, tmp_path):
    source, schema, data = tmp_path / "clicks.csv", tmp_path / "schema.json", tmp_path / "data"
    header, *lines = (frappe_files / "train.csv").read_text().splitlines()[:3001]
    lines = [f"2024-02-{1 + i % 28:02} {i % 24:02}:00:00,{line}" for i, line in enumerate(lines)]
    lines[20] = lines[20] + ",more"
    source.write_text("\n".join([f"at,{header}", *lines]) + "\n")
    infer = ("--infer_schema", f"--source={source}", f"--schema={schema}")
    done = run("prepare", *infer)
    assert done.returncode == 0, done.stderr
    assert "label      label        by its name" in done.stdout
    assert "schema.json already exists" in mistake("prepare", *infer)

    flags = ("--dataset=tabular", f"--source={source}", f"--schema={schema}", f"--out={data}")
    assert f"{source}, line 22, 13 columns instead of 12" in mistake("prepare", *flags)
    done = run("prepare", *flags, "--max_bad_rows=1", "--time_column=at")
    assert done.returncode == 0, done.stderr
    assert "12 fields, " in done.stdout
    rejects = next(data.rglob("rejects.tsv"))
    assert f"all rejected rows are in {rejects}" in done.stdout
    assert rejects.read_text().splitlines()[1].split("\t")[1:3] == [str(source), "22"]

    config = "--config=experiments/configs/tabular.py"
    done = run(
        *("train", config, f"--config.data.folder={data}", f"--workdir={tmp_path / 'run'}"),
        "--config.loop.epochs=1",
    )
    assert done.returncode == 0, done.stderr
    scored = tmp_path / "scored.csv"
    done = run(
        *("predict", f"--workdir={tmp_path / 'run'}", f"--input={tmp_path}/cl*.csv"),
        *(f"--output={scored}", "--max_bad_rows=1"),
    )
    assert done.returncode == 0, done.stderr
    assert "2,999 rows scored, 1 rejected" in done.stdout
    assert scored.read_text().startswith(f"at,{header},probability")


def test_raw_rows_are_inspected(frappe_files, tmp_path):
    out = tmp_path / "report"
    flags = ("--inspect", "--dataset=frappe", f"--source={frappe_files}", f"--out={out}")
    done = run("prepare", *flags)
    assert done.returncode == 0, done.stderr
    assert "user: categorical (dtype=integer)" in done.stdout
    names = ["inspection.html", "inspection.json", "inspection.txt"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert (out / "inspection.txt").read_text() in done.stdout
    assert "inspection.txt already exists" in mistake("prepare", *flags)

    source = tmp_path / "clicks.csv"
    lines = (frappe_files / "train.csv").read_text().splitlines()[:300]
    source.write_text("\n".join([*lines, "1,2"]) + "\n")
    other = tmp_path / "other"
    table = ("--inspect", "--dataset=tabular", f"--source={source}", f"--out={other}")
    assert "line 301, 2 columns instead of 11" in mistake("prepare", *table)
    assert not other.exists()
    done = run("prepare", *table, "--max_bad_rows=1", "--label=label")
    assert done.returncode == 0, done.stderr
    assert "from 299 rows: " in done.stdout  # how the schema was inferred
    assert (other / "inspection.html").read_text().startswith("<!DOCTYPE html>")


def test_new_values_are_trained_on_from_the_weights_of_before(frappe_files, tmp_path):
    later = tmp_path / "later"
    later.mkdir()
    for split in ("train", "valid", "test"):
        header, *lines = (frappe_files / f"{split}.csv").read_text().splitlines()[:2001]
        if split == "train":
            lines[:40] = [
                f"{i % 2},77,{line.split(',', 2)[2]}" for i, line in enumerate(lines[:40])
            ]
        (later / f"{split}.csv").write_text("\n".join([header, *lines]) + "\n")
    data, grown, workdir = tmp_path / "data", tmp_path / "grown", tmp_path / "run"
    done = run("prepare", "--dataset=frappe", f"--source={frappe_files}", f"--out={data}")
    assert done.returncode == 0, done.stderr
    config = (FRAPPE, *SMALL, "--config.loop.epochs=1")
    done = run("train", *config, f"--config.data.folder={data}", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr

    flags = ("--dataset=frappe", f"--source={later}", f"--out={grown}")
    extend = f"--extend_from={workdir}"
    assert "has min_count=1, but here it has min_count=2" in mistake(
        "prepare", *flags, extend, "--min_count=2"
    )
    done = run("prepare", *flags, extend)
    assert done.returncode == 0, done.stderr
    assert "1 new values: user 1" in done.stdout
    warm = (*config, f"--config.data.folder={grown}", f"--workdir={tmp_path / 'warm'}")
    done = run("train", *warm, f"--warm_start={workdir}")
    assert done.returncode == 0, done.stderr
    assert "from warm start: 210 of 211 table rows and all other weights" in done.stdout
    assert "holds no run" in mistake("train", *warm[:-1], f"--warm_start={tmp_path}")


def test_columns_start_from_vectors_of_a_file(prepared, tmp_path):
    files = {column: tmp_path / f"{column}.parquet" for column in ("user", "item")}
    for length, (column, file) in zip((10, 12), files.items(), strict=True):
        vectors = [[float((i * j) % 7) for j in range(length)] for i in range(1, 21)]
        pq.write_table(pa.table({column: range(20), "vector": vectors}), file)
    data = f"--config.data.folder={prepared}"
    config = tmp_path / "config.py"
    config.write_text(
        "from experiments.configs import frappe\n\n\ndef get_config():\n"
        "    config = frappe.get_config()\n"
        "    config.pretrained_vectors = dict(item=dict(file='none', scale='as_is'))\n"
        "    return config\n"
    )
    small = (f"--config={config}", *SMALL, data, "--config.loop.epochs=1")
    small += ("--config.model.embed_dim=10",)
    tuned, frozen = (
        f"--{flag}={column}={files[column]}"
        for flag, column in (("pretrained_vectors", "user"), ("frozen_vectors", "item"))
    )
    done = run("train", *small, f"--workdir={tmp_path / 'run'}", tuned, frozen)
    assert done.returncode == 0, done.stderr
    item, user = (line for line in done.stdout.splitlines() if line.startswith("pretrained vec"))
    assert " of 20 values of user have a vector; multiplied by" in user
    assert "12 numbers reduced to 10" in item
    assert item.endswith("; frozen")
    assert json.loads((tmp_path / "run/config.json").read_text())["pretrained_vectors"] == {
        "user": {"file": str(files["user"]), "scale": "unit_length", "tuned": True},
        "item": {"file": str(files["item"]), "scale": "as_is", "tuned": False},
    }
    assert "--frozen_vectors=item: give COLUMN=FILE" in mistake(
        "train", *small, "--frozen_vectors=item"
    )
    assert "column 'user' has vectors already" in mistake(
        "train", *small, tuned, f"--frozen_vectors=user={files['user']}"
    )


def test_mistakes_about_schemas_are_one_line(frappe_files, tmp_path):
    assert "which data set? give --dataset=NAME" in mistake("prepare")
    train = f"--source={frappe_files}/train.csv"
    assert "needs a schema of its columns" in mistake("prepare", "--dataset=tabular", train)
    assert "give both" in mistake("prepare", "--infer_schema", train)
    schema = tmp_path / "none" / "schema.json"
    assert "its folder does not exist" in mistake(
        "prepare", "--infer_schema", train, f"--schema={schema}"
    )
    assert "--label goes with --infer_schema" in mistake("prepare", "--dataset=frappe", "--label=y")
    assert "schema.json: cannot be read" in mistake(
        "prepare", "--dataset=tabular", train, f"--schema={schema}"
    )


def test_killed_and_started_again_it_goes_on(prepared, tmp_path):
    workdir = tmp_path / "run"
    flags = (FRAPPE, f"--config.data.folder={prepared}", f"--workdir={workdir}", *SMALL)
    flags = (*flags, "--config.loop.epochs=2")
    process = Launched("train", *flags)
    deadline = time.monotonic() + 120
    # An unfinished checkpoint has a longer name.
    while not [p for p in workdir.glob("checkpoints/*") if p.name.isdigit()]:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (workdir / "results.json").exists()
    done = run("train", *flags)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stdout
    assert (workdir / "results.json").exists()


def test_the_demo_reports_how_close_to_the_best_it_came(tmp_path):
    done = run(
        "train",
        f"--config.data.folder={tmp_path}",
        "--config.data.options.rows=4000",
        "--config.loop.epochs=1",
        f"--workdir={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    assert "test: the best possible AUC is 0.8" in done.stdout
    assert "% (AUC)" in done.stdout
    assert (tmp_path / "run" / "training.png").exists()


def test_compare_trains_each_model_once_and_reports_the_differences(prepared, tmp_path):
    flags = (
        FRAPPE,
        "--models=lr,fm",
        "--baseline=fm",
        "--seeds=3",
        f"--workdir={tmp_path / 'comparison'}",
        "--resamples=100",
        f"--config.data.folder={prepared}",
        "--config.loop.epochs=1",
        "--config.loop.batch_size=2048",
    )
    done = run("compare", *flags)
    assert done.returncode == 0, done.stderr
    assert "minus fm" in done.stdout
    results = json.loads((tmp_path / "comparison" / "results.json").read_text())
    assert list(results["models"]) == ["lr", "fm"]
    assert results["config"]["lr"]["loop"]["batch_size"] == 2048
    assert (tmp_path / "comparison" / "comparison.png").exists()
    assert (tmp_path / "comparison" / "fm" / "3" / "results.json").exists()


def test_a_comparison_of_which_a_model_fails_reports_the_rest_and_fails(prepared, tmp_path):
    config = tmp_path / "wild.py"
    config.write_text(
        "from experiments.configs import frappe\n\n"
        "MODELS = ('lr', 'wild')\n\n"
        "def get_config(model='lr'):\n"
        "    config = frappe.get_config('fm' if model == 'wild' else model)\n"
        "    if model == 'wild':\n"
        "        config.optimizer.update(name='sgd', learning_rate=1e30)\n"
        "    return config\n"
    )
    done = run(
        "compare", f"--config={config}", "--seeds=3", f"--workdir={tmp_path / 'comparison'}",
        "--resamples=100", f"--config.data.folder={prepared}", "--config.loop.epochs=1",
        "--config.loop.batch_size=2048",
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: wild, seed 3: the training loss is " in done.stderr
    assert "\nlr " in done.stdout
    results = json.loads((tmp_path / "comparison" / "results.json").read_text())
    assert list(results["models"]) == ["lr"]
    assert list(results["failed"]) == ["wild"]


def test_mistakes_in_a_comparison_are_one_line(tmp_path):
    assert "--config must have a value" in mistake("compare")
    assert "model 'ffm' has no settings here" in mistake("compare", FRAPPE, "--models=lr,ffm")
    # All models of the config are compared if none is named.
    message = mistake("compare", FRAPPE, "--baseline=ffm")
    assert message.startswith("error: baseline 'ffm' is not compared; use one of ['lr', 'fm', ")
    message = mistake("compare", FRAPPE, "--models=deepfm,lr", "--config.model.embed_dim=4")
    assert message == "error: --config.model.embed_dim: lr has no such setting"
    one = tmp_path / "one.py"
    one.write_text(
        "from experiments.configs import frappe\n\n"
        "def get_config():\n    return frappe.get_config()\n"
    )
    assert "takes no model" in mistake("compare", f"--config={one}")
    assert "--resamples" in mistake("compare", FRAPPE, "--resamples=99")


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc unmaps freed memory so eagerly"
)
def test_freed_memory_is_kept_for_the_next_allocation():
    # The same large array twice: the second reuses the pages of the first if they are kept.
    code = (
        "import resource, sys, numpy as np\n"
        "from experiments.launcher import keep_freed_memory\n"
        "if sys.argv[1] == 'keep': keep_freed_memory()\n"
        "np.ones(1 << 24)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "np.ones(1 << 24)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )

    def page_faults(argument):
        done = subprocess.run(
            [sys.executable, "-c", code, argument], cwd=ROOT, capture_output=True, check=True
        )
        return int(done.stdout)

    # At most 64 faults of huge pages, 32768 of small ones; none if the pages are reused.
    assert page_faults("keep") < 16 < 60 < page_faults("leave")


def test_flags_and_keys_that_do_not_exist_are_named(tmp_path):
    assert "Unknown command line flag 'workdirs'" in mistake("train", "--workdirs=x")
    assert "epoch" in mistake("train", "--config.loop.epoch=3", f"--workdir={tmp_path}")
    assert "model 'ffm' has no settings here" in mistake("train", FRAPPE + ":ffm")
    assert "none.py" in mistake("train", "--config=none.py")
    assert "none.py" in mistake("train", "--config=none.py", "--config.loop.epochs=1")
    assert "unexpected argument 'demo'" in mistake("train", "demo")
    assert "--workdir" in mistake("predict", "--input=a.csv", "--output=b.csv")


def test_mistakes_in_data_are_one_line_and_leave_nothing(frappe_files, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for split in ("train", "valid", "test"):
        lines = (frappe_files / f"{split}.csv").read_text().splitlines()[:200]
        if split == "valid":
            lines[7] = "2" + lines[7][1:]
        (source / f"{split}.csv").write_text("\n".join(lines) + "\n")
    flags = ("--dataset=frappe", f"--source={source}", f"--out={out}")
    message = mistake("prepare", *flags)
    assert f"{source}/valid.csv, line 8, column label: value '2' is not a label" in message
    assert not [path for path in out.rglob("*") if path.is_file()]
    done = run("prepare", *flags, "--max_bad_rows=1")
    assert done.returncode == 0, done.stderr
    assert "rejected: " in done.stdout

    assert "is not prepared" in mistake("train", FRAPPE, f"--config.data.folder={tmp_path}")
    assert "holds no run" in mistake("evaluate", f"--workdir={tmp_path}")


def test_crosses_are_flags_of_prepare(frappe_files, tmp_path):
    flags = ("--dataset=frappe", f"--source={frappe_files}", f"--out={tmp_path}")
    message = mistake("prepare", *flags, "--cross=user,itm")
    assert "'itm' is not a categorical or numeric column; use one of user, item, daytime" in message
    assert "needs two columns or more" in mistake("prepare", *flags, "--cross=user")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    crosses = ("--cross=user,item", "--cross=city,item,cost", "--cross_buckets=500")
    done = run("prepare", *flags, *crosses)
    assert done.returncode == 0, done.stderr
    assert "buckets of each cross: user x item 500, city x item x cost 500" in done.stdout
    assert "10 fields and 2 crosses, 1,212 table rows in all" in done.stdout
    results = json.loads(next(tmp_path.rglob("results.json")).read_text())
    assert [feature["rows"] for feature in results["features"]] == [21] * 10 + [501] * 2
    assert "with crosses=" in mistake("prepare", *flags)
