import chex
import numpy as np
import pytest

from deepfm_jax.errors import UserError
from deepfm_jax.metrics import BinaryMetrics
from deepfm_jax.training import plots

TRAIN = [(10 * k, 0.4 + 0.3 / k) for k in range(1, 101)]
VALID = [
    {"step": step, "auc": auc, "logloss": 0.5}
    for step, auc in ((300, 0.70), (600, 0.75), (900, 0.74))
]
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def state(seed=0, rows=2000):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2, 1, rows)
    return BinaryMetrics.from_batch(
        logits, rng.random(rows) < 1 / (1 + np.exp(-logits)), np.ones(rows)
    )


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_training_figure_labels_its_axes_with_units():
    loss, auc = plots.training_figure({"train": TRAIN, "valid": VALID}).axes
    assert (loss.get_title(), loss.get_ylabel()) == ("Loss", "log loss [nats per row]")
    assert (auc.get_title(), auc.get_ylabel()) == ("Ranking quality", "AUC")
    assert auc.get_xlabel() == "training step"


def test_training_figure_draws_the_history_it_was_given():
    loss, auc = plots.training_figure({"train": TRAIN, "valid": VALID}).axes
    chex.assert_trees_all_equal(lines(loss)["train, raw"], np.array(TRAIN))
    chex.assert_trees_all_equal(
        lines(loss)["valid"], np.array([(300.0, 0.5), (600.0, 0.5), (900.0, 0.5)])
    )
    chex.assert_trees_all_equal(
        lines(auc)["valid"], np.array([(300.0, 0.70), (600.0, 0.75), (900.0, 0.74)])
    )


def test_training_figure_marks_the_best_step():
    auc = plots.training_figure({"train": TRAIN, "valid": VALID}).axes[1]
    assert legend(auc) == ["valid", "best: 0.7500 at step 600"]
    star = lines(auc)["best: 0.7500 at step 600"]
    chex.assert_trees_all_equal(star, np.array([[600.0, 0.75]]))


def test_the_smoothed_loss_is_the_centred_mean_and_keeps_a_constant_to_its_ends():
    wave = [(k, 1.0 + (-1) ** k) for k in range(75)]
    smooth = lines(plots.training_figure({"train": wave}).axes[0])["train, mean of 3 points"][:, 1]
    # Even steps are 2, odd steps 0: (0 + 2 + 0) / 3 around an even step, (2 + 0) / 2 at the ends.
    expected = np.where(np.arange(75) % 2 == 0, 2 / 3, 4 / 3)
    expected[[0, -1]] = 1.0
    # 1e-12: float64 sums of 3 terms.
    np.testing.assert_allclose(smooth, expected, rtol=1e-12)


def test_a_history_without_validation_has_the_loss_panel_only():
    figure = plots.training_figure({"train": TRAIN, "valid": []})
    assert [axes.get_ylabel() for axes in figure.axes] == ["log loss [nats per row]"]
    assert figure.axes[0].get_xlabel() == "training step"


def test_a_single_point_shows_as_a_marker():
    (axes,) = plots.training_figure({"train": TRAIN[:1]}).axes
    (line,) = axes.get_lines()
    assert line.get_marker() == "o"
    chex.assert_trees_all_equal(line.get_xydata(), np.array(TRAIN[:1]))


def test_an_empty_history_is_refused():
    with pytest.raises(UserError, match="no step to plot"):
        plots.training_figure({"train": [], "valid": []})


def test_calibration_figure_draws_each_split_and_the_diagonal():
    states = {"valid": state(0), "test": state(1)}
    rates, spread = plots.calibration_figure(states).axes
    assert rates.get_ylabel() == "observed positive rate"
    assert (spread.get_xlabel(), spread.get_ylabel()) == ("predicted probability", "share of rows")
    assert [text.split(" ")[0] for text in legend(rates)] == ["perfect", "valid", "test"]
    diagonal = lines(rates)["perfect"]
    chex.assert_trees_all_equal(diagonal[:, 0], diagonal[:, 1])
    for container, (name, metrics) in zip(rates.containers, states.items(), strict=True):
        curve = metrics.reliability()
        assert container.get_label().startswith(name)
        points = container.lines[0].get_xydata()
        chex.assert_trees_all_equal(points, np.stack([curve.prediction, curve.observed], axis=1))
        assert container.has_yerr


def test_every_bin_with_its_error_bar_lies_inside_the_calibration_axes():
    metrics = state(rows=300)
    curve = metrics.reliability()
    rates = plots.calibration_figure({"test": metrics}).axes[0]
    low, high = rates.get_xlim()
    assert rates.get_ylim() == (low, high)
    assert low < 0 < max(curve.prediction.max(), (curve.observed + curve.standard_error).max())
    assert max(curve.prediction.max(), (curve.observed + curve.standard_error).max()) <= high


def test_calibration_of_no_split_is_refused():
    with pytest.raises(UserError, match="no evaluated split"):
        plots.calibration_figure({})


@pytest.mark.parametrize(
    ("save", "content"),
    [
        (plots.save_training_plot, {"train": TRAIN, "valid": VALID}),
        (plots.save_training_plot, {"train": TRAIN[:1], "valid": VALID[:1]}),
        (plots.save_calibration_plot, {"test": state()}),
    ],
)
def test_a_saved_plot_replaces_the_file_and_leaves_nothing_beside_it(tmp_path, save, content):
    path = tmp_path / "plot.png"
    path.write_bytes(b"an older plot")
    save(content, path)
    image = path.read_bytes()
    assert image.startswith(PNG_SIGNATURE)
    width, height = (int.from_bytes(image[start : start + 4], "big") for start in (16, 20))
    assert min(width, height) > 500
    assert [entry.name for entry in tmp_path.iterdir()] == ["plot.png"]
