"""Predictor, evaluation and scoring of files, on one small trained run."""

import gzip

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
import pytest
from sklearn.metrics import roc_auc_score

from deepfm_jax import UserError
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import prepare
from deepfm_jax.evaluation.evaluate import evaluate_file, evaluate_split
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.readers.sources import read_tables
from deepfm_jax.serving import Predictor
from deepfm_jax.serving.predict import predict_file
from deepfm_jax.training.loop import train
from tests import click_logs, experiment_settings


@pytest.fixture(scope="module")
def workdir(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    train(experiment_settings.small(prepared, loop={"epochs": 1}), folder)
    return folder


@pytest.fixture(scope="module")
def predictor(workdir):
    return Predictor(workdir)


def test_raw_rows_score_as_the_evaluated_split(predictor, frappe_files):
    evaluated = evaluate_split(predictor, "test")
    from_file = evaluate_file(predictor, frappe_files / "test.csv")
    assert from_file["auc"] == pytest.approx(evaluated["auc"], abs=1e-6)
    assert from_file["logloss"] == pytest.approx(evaluated["logloss"], abs=1e-6)


def test_predicted_probabilities_have_the_evaluated_auc(predictor, frappe_files, tmp_path):
    output = tmp_path / "scored.csv"
    report = predict_file(predictor, frappe_files / "test.csv", output)
    assert (report.kept, report.rejected) == (click_logs.ROWS["test"], 0)
    scored = pa_csv.read_csv(output).to_pydict()
    auc = roc_auc_score(scored["label"], scored["probability"])
    assert auc == pytest.approx(evaluate_split(predictor, "test")["auc"], abs=1e-6)


def test_rows_stay_as_they_are_with_the_probability_at_the_end(predictor, frappe_files, tmp_path):
    lines = (frappe_files / "test.csv").read_text().splitlines()[:4]
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("\n".join(["note," + lines[0], *('"a, b",' + row for row in lines[1:])]))
    predict_file(predictor, source, output)
    found = output.read_text().splitlines()
    assert found[0] == f"note,{lines[0]},probability"
    cells = [line.replace('"a, b"', "AB").replace('"', "").split(",") for line in found[1:]]
    assert [",".join(row[1:-1]) for row in cells] == lines[1:]
    (table,) = read_tables(source, predictor.encoder.schema)
    np.testing.assert_allclose(
        [float(row[-1]) for row in cells], predictor.probabilities(table)[:, 0], rtol=1e-7
    )


def test_rows_do_not_depend_on_how_they_are_batched(predictor, frappe_files):
    (table,) = read_tables(frappe_files / "test.csv", predictor.encoder.schema)
    whole = predictor.logits(table)
    np.testing.assert_array_equal(predictor.logits(table.slice(100, 7)), whole[100:107])
    assert predictor.logits(table.slice(0, 0)).shape == (0, 1)


def test_unlabelled_rows_unseen_values_and_parquet(predictor, frappe_files, tmp_path):
    (table,) = read_tables(frappe_files / "test.csv", predictor.encoder.schema)
    users = np.full(table.num_rows, 10**12)
    unlabelled = table.drop_columns(["label", "user"]).append_column("user", [users])
    source, output = tmp_path / "rows.parquet", tmp_path / "out.parquet"
    pa_parquet.write_table(unlabelled, source)
    predict_file(predictor, source, output)
    scored = pa_parquet.read_table(output)
    assert scored.column_names == [*unlabelled.column_names, "probability"]
    p = scored["probability"].to_numpy()
    assert np.isfinite(p).all()
    assert ((p > 0) & (p < 1)).all()
    assert scored["user"].to_pylist() == users.tolist()


def test_a_table_in_memory_scores_as_its_file(predictor, frappe_files, tmp_path):
    path, output = frappe_files / "test.csv", tmp_path / "scored.csv"
    predict_file(predictor, path, output)
    expected = pa_csv.read_csv(output)["probability"].to_numpy()
    table = pa_csv.read_csv(path)
    np.testing.assert_allclose(predictor.predict(table), expected, rtol=1e-6)
    columns = table.drop_columns("label").slice(0, 3).to_pydict()
    np.testing.assert_allclose(predictor.predict(columns), expected[:3], rtol=1e-6)
    with pytest.raises(UserError, match="table, row 2, column user: value 'x' is not an integer"):
        predictor.predict({**columns, "user": ["1", "x", "2"]})


def test_files_of_a_pattern_are_scored_one_after_the_other(predictor, frappe_files, tmp_path):
    header, *lines = (frappe_files / "test.csv").read_text().splitlines()[:9]
    (tmp_path / "whole.csv").write_text("\n".join([header, *lines]) + "\n")
    for part in (0, 1):
        text = "\n".join([header, *lines[4 * part : 4 * part + 4]]) + "\n"
        (tmp_path / f"part-{part}.csv").write_text(text)
    predict_file(predictor, tmp_path / "whole.csv", tmp_path / "one.csv")
    predict_file(predictor, tmp_path / "part-*.csv", tmp_path / "several.csv")
    assert (tmp_path / "one.csv").read_text() == (tmp_path / "several.csv").read_text()


def test_columns_of_several_files_are_those_of_the_first(predictor, frappe_files, tmp_path):
    rows = pa_csv.read_csv(frappe_files / "test.csv").slice(0, 6)
    turned = rows.slice(3).select(rows.column_names[::-1])
    for name, part in (("a", rows.slice(0, 3)), ("b", turned)):
        pa_csv.write_csv(part, tmp_path / f"{name}.csv")
    # As other writers store them: narrower integers, in another order.
    narrow = turned.cast(pa.schema([(column, pa.int32()) for column in turned.column_names]))
    pa_parquet.write_table(rows.slice(0, 3), tmp_path / "a.parquet")
    pa_parquet.write_table(narrow, tmp_path / "b.parquet")
    expected = predictor.predict(rows)
    for suffix in (".csv", ".parquet"):
        output = tmp_path / f"scored{suffix}"
        predict_file(predictor, tmp_path / f"[ab]{suffix}", output)
        read = pa_csv.read_csv if suffix == ".csv" else pa_parquet.read_table
        assert read(output).drop_columns("probability").equals(rows)
        np.testing.assert_allclose(read(output)["probability"], expected, rtol=1e-6)


def test_lists_are_written_only_to_parquet(predictor, frappe_files, tmp_path):
    rows = pa_csv.read_csv(frappe_files / "test.csv").slice(0, 2)
    rows = rows.append_column("tags", pa.array([["a"], None]))
    pa_parquet.write_table(rows, tmp_path / "in.parquet")
    with pytest.raises(UserError, match="column tags: text cannot hold cells of type list"):
        predict_file(predictor, tmp_path / "in.parquet", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    predict_file(predictor, tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert pa_parquet.read_table(tmp_path / "out.parquet")["tags"].to_pylist() == [["a"], None]


def test_cells_unfit_for_text_are_named_by_file_and_column(predictor, frappe_files, tmp_path):
    rows = pa_csv.read_csv(frappe_files / "test.csv").slice(0, 2)
    views = rows.append_column("view", pa.array(["a", 'b"'], pa.string_view()))
    pa_parquet.write_table(views, tmp_path / "views.parquet")
    predict_file(predictor, tmp_path / "views.parquet", tmp_path / "views.csv")
    assert pa_csv.read_csv(tmp_path / "views.csv")["view"].to_pylist() == ["a", 'b"']
    binary = rows.append_column("sign", pa.array([b"a", b"\xff"]))
    pa_parquet.write_table(binary, tmp_path / "in.parquet")
    with pytest.raises(UserError, match=r"in.parquet, column sign: cells of type binary cannot be"):
        predict_file(predictor, tmp_path / "in.parquet", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_a_later_file_of_other_columns_is_named(predictor, frappe_files, tmp_path):
    rows = pa_csv.read_csv(frappe_files / "test.csv").slice(0, 2)
    for name, sizes in (("a", pa.array([1, 2], pa.int8())), ("b", pa.array([3, 300]))):
        pa_parquet.write_table(rows.append_column("size", sizes), tmp_path / f"{name}.parquet")
    with pytest.raises(UserError, match=r"b.parquet, column size: cells of type int64 do not"):
        predict_file(predictor, tmp_path / "[ab].parquet", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_rows_behind_a_url_and_in_libfm_files_score_as_those_of_csv(
    predictor, frappe_files, tmp_path
):
    path = frappe_files / "test.csv"
    (table,) = read_tables(path, predictor.encoder.schema)
    cells = [line.split(",") for line in path.read_text().splitlines()[1:]]
    features = "".join(" ".join([row[0], *(f"{id_}:1" for id_ in row[1:])]) + "\n" for row in cells)
    memory = fsspec.filesystem("memory")
    memory.pipe("/served/a.csv", path.read_bytes())
    memory.pipe("/served/a.libfm.gz", gzip.compress(features.encode()))
    evaluated = evaluate_file(predictor, path)
    for name in ("a.csv", "a.libfm.gz"):
        url, output = f"memory://served/{name}", tmp_path / f"{name}.scored.csv"
        predict_file(predictor, url, output)
        scored = pa_csv.read_csv(output).to_pydict()
        np.testing.assert_allclose(
            scored["probability"], predictor.probabilities(table)[:, 0], rtol=1e-12
        )
        assert scored["item"] == [int(row[2]) for row in cells]
        assert evaluate_file(predictor, url) == evaluated
    memory.rm("/served", recursive=True)


def test_a_compressed_output_is_complete(predictor, frappe_files, tmp_path):
    predict_file(predictor, frappe_files / "test.csv", tmp_path / "out.csv.gz")
    predict_file(predictor, frappe_files / "test.csv", tmp_path / "out.csv")
    packed = gzip.decompress((tmp_path / "out.csv.gz").read_bytes())
    assert packed == (tmp_path / "out.csv").read_bytes()


def test_bad_rows_are_left_out_or_stop_scoring_without_output(predictor, frappe_files, tmp_path):
    lines = (frappe_files / "test.csv").read_text().splitlines()
    lines[3] = "1,2"
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"in.csv, line 4, 2 columns instead of 11"):
        predict_file(predictor, source, output)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    report = predict_file(predictor, source, output, max_bad_rows=1)
    assert (report.kept, report.rejected) == (click_logs.ROWS["test"] - 1, 1)
    assert len(output.read_text().splitlines()) == click_logs.ROWS["test"]


def test_impossible_outputs_are_refused(predictor, frappe_files, tmp_path):
    source = frappe_files / "test.csv"
    with pytest.raises(UserError, match="unknown kind of file"):
        predict_file(predictor, source, tmp_path / "out.xlsx")
    with pytest.raises(UserError, match="its folder does not exist"):
        predict_file(predictor, source, tmp_path / "none" / "out.csv")
    predict_file(predictor, source, tmp_path / "once.csv")
    with pytest.raises(UserError, match="already has a column 'probability'"):
        predict_file(predictor, tmp_path / "once.csv", tmp_path / "twice.csv")
    assert not (tmp_path / "twice.csv").exists()


def test_a_file_of_one_class_cannot_be_evaluated(predictor, frappe_files, tmp_path):
    lines = (frappe_files / "test.csv").read_text().splitlines()
    source = tmp_path / "ones.csv"
    source.write_text("\n".join([lines[0], *("1" + row[1:] for row in lines[1:50])]) + "\n")
    with pytest.raises(UserError, match=r"ones\.csv"):
        evaluate_file(predictor, source)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        Predictor(tmp_path)


def test_crosses_are_encoded_from_raw_rows(frappe_files, tmp_path):
    out, workdir = tmp_path / "out", tmp_path / "run"
    options = BuildOptions(crosses=(("user", "item"), ("city", "item")), cross_buckets=300)
    prepare("frappe", out, source=frappe_files, options=options)
    train(experiment_settings.small(out, model={"name": "lr"}, loop={"epochs": 1}), workdir)
    predictor = Predictor(workdir)
    (table,) = read_tables(frappe_files / "test.csv", predictor.encoder.schema)
    (batch,) = PreparedData("frappe", out).batches("test", table.num_rows)
    np.testing.assert_array_equal(predictor.encoder.encode(table).ids, batch["ids"])
    from_file = evaluate_file(predictor, frappe_files / "test.csv")
    assert from_file["auc"] == pytest.approx(evaluate_split(predictor, "test")["auc"], abs=1e-6)


def test_a_data_set_prepared_with_another_encoding_is_refused(tmp_path):
    source, out, workdir = tmp_path / "source", tmp_path / "out", tmp_path / "run"
    source.mkdir()
    click_logs.write_frappe(source, {"train": 600, "valid": 100, "test": 100})
    prepare("frappe", out, source=source)
    train(experiment_settings.small(out, loop={"epochs": 1}), workdir)
    click_logs.write_frappe(source, {"train": 300, "valid": 100, "test": 100}, seed=4)
    prepare("frappe", out, source=source, overwrite=True)
    with pytest.raises(UserError, match="prepared with another encoding"):
        evaluate_split(Predictor(workdir), "test")
