"""Plots of a run: the training curves, and the calibration of its probabilities.

Figures are made with matplotlib objects instead of pyplot, so there is no global state and no
display is needed.
"""

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from deepfm_jax.errors import UserError
from deepfm_jax.files import write_atomically
from deepfm_jax.metrics import BinaryMetrics

_BLUE, _ORANGE, _GREEN, _INK = "#3b6fb6", "#d9722b", "#2f8f6b", "#555555"
_SPLIT_COLOURS = (_BLUE, _ORANGE, _GREEN, "#8e5ea2", "#b0413e")
_DPI = 150


def save_training_plot(history: Mapping[str, Sequence[Any]], path: str | os.PathLike) -> None:
    """Writes ``training_figure(history)`` as a PNG, replacing ``path`` atomically."""
    _save(training_figure(history), path)


def save_calibration_plot(states: Mapping[str, BinaryMetrics], path: str | os.PathLike) -> None:
    """Writes ``calibration_figure(states)`` as a PNG, replacing ``path`` atomically."""
    _save(calibration_figure(states), path)


def training_figure(history: Mapping[str, Sequence[Any]]) -> Figure:
    """Plots the loss by step and, if the run was validated, AUC by step with the best step marked.

    Args:
      history: ``"train"``: (step, loss) pairs; ``"valid"``: dicts with ``"step"``, ``"auc"`` and
        ``"logloss"`` (nats); other keys are ignored. Both ascend in step; either may be empty or
        absent.

    Raises:
      UserError: the history is empty.
    """
    train, valid = history.get("train", ()), history.get("valid", ())
    if not train and not valid:
        raise UserError("the history holds no step to plot; train for at least one logged step")
    figure = Figure(figsize=(8.0, 6.4 if valid else 3.9), layout="constrained")
    panels = figure.subplots(2 if valid else 1, 1, sharex=True, squeeze=False)[:, 0]
    _draw_loss(panels[0], train, valid)
    if valid:
        _draw_auc(panels[1], valid)
    panels[-1].set_xlabel("training step")
    panels[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.align_ylabels()
    return figure


def calibration_figure(states: Mapping[str, BinaryMetrics]) -> Figure:
    """Plots the reliability curve of each split above the distribution of its predictions.

    The axes end at the 99th percentile of the predictions, so that the tail does not squeeze
    the rest into a corner. Bars are one binomial standard error.

    Args:
      states: Evaluated examples by the name of their split.

    Raises:
      UserError: there is no split, or ``BinaryMetrics.reliability`` refuses one.
    """
    if not states:
        raise UserError("there is no evaluated split to plot; evaluate one first")
    curves = {name: state.reliability(split=name) for name, state in states.items()}
    probabilities = {name: state.probabilities() for name, state in states.items()}
    farthest = [np.quantile(p, 0.99) for p in probabilities.values()]
    farthest += [np.max(curve.prediction) for curve in curves.values()]
    farthest += [np.max(curve.observed + curve.standard_error) for curve in curves.values()]
    limit = min(1.0, 1.05 * float(max(farthest)))
    # Some room below 0 keeps the markers of bins without a positive from being clipped.
    view = (-0.02 * limit, limit)

    figure = Figure(figsize=(6.4, 7.6), layout="constrained")
    rates, spread = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = np.linspace(0.0, limit, 51)
    rates.plot((0, limit), (0, limit), color=_INK, linewidth=1, linestyle="--", label="perfect")
    for index, (name, curve) in enumerate(curves.items()):
        colour = _SPLIT_COLOURS[index % len(_SPLIT_COLOURS)]
        rates.errorbar(
            curve.prediction,
            curve.observed,
            yerr=curve.standard_error,
            color=colour,
            marker="o",
            markersize=4,
            linewidth=1.2,
            elinewidth=1,
            capsize=2,
            label=f"{name} (ECE {curve.expected_calibration_error:.2g})",
        )
        weights = states[name].weights
        share = weights / weights.sum()
        spread.hist(
            probabilities[name],
            edges,
            weights=share,
            histtype="stepfilled",
            color=colour,
            alpha=0.15,
        )
        spread.hist(
            probabilities[name], edges, weights=share, histtype="step", color=colour, label=name
        )
    rates.set(
        title="Calibration: bins of equal mass, ± 1 standard error",
        ylabel="observed positive rate",
        xlim=view,
        ylim=view,
    )
    spread.set(title="Predictions", xlabel="predicted probability", ylabel="share of rows")
    spread.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    for axes in (rates, spread):
        _finish(axes)
    figure.align_ylabels()
    return figure


def _draw_loss(axes: Axes, train: Sequence[Any], valid: Sequence[Any]) -> None:
    if train:
        steps, losses = np.asarray(train, dtype=np.float64).T
        window = max(1, len(losses) // 25)
        if window > 1:
            axes.plot(steps, losses, color=_BLUE, linewidth=0.6, alpha=0.35, label="train, raw")
            label = f"train, mean of {window} points"
            axes.plot(steps, _smooth(losses, window), color=_BLUE, linewidth=1.8, label=label)
        else:
            axes.plot(steps, losses, color=_BLUE, linewidth=1.8, marker="o", ms=3, label="train")
    if valid:
        steps, losses = _column(valid, "step"), _column(valid, "logloss")
        axes.plot(steps, losses, color=_ORANGE, linewidth=1, marker="o", ms=5, label="valid")
    axes.set(title="Loss", ylabel="log loss [nats per row]")
    _finish(axes)


def _draw_auc(axes: Axes, valid: Sequence[Any]) -> None:
    steps, aucs = _column(valid, "step"), _column(valid, "auc")
    axes.plot(steps, aucs, color=_ORANGE, linewidth=1.2, marker="o", ms=5, label="valid")
    best = int(np.argmax(aucs))
    label = f"best: {aucs[best]:.4f} at step {steps[best]:,.0f}"
    style = {"marker": "*", "markersize": 15, "markeredgecolor": "white", "linestyle": "none"}
    axes.plot(steps[best], aucs[best], color=_GREEN, zorder=3, label=label, **style)
    axes.axvline(steps[best], color=_GREEN, linewidth=0.8, linestyle=":")
    axes.margins(y=0.12)
    # Plain numbers, because an offset such as "+8.01e-1" beside the axis hides the AUC.
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set(title="Ranking quality", ylabel="AUC")
    _finish(axes)


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centered moving mean, over a truncated window near the ends."""
    box = np.ones(window)
    return np.convolve(values, box, "same") / np.convolve(np.ones(len(values)), box, "same")


def _column(rows: Sequence[Any], key: str) -> np.ndarray:
    return np.asarray([row[key] for row in rows], dtype=np.float64)


def _finish(axes: Axes) -> None:
    axes.grid(color="#e3e3e3", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")


def _save(figure: Figure, path: str | os.PathLike) -> None:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=_DPI)
    write_atomically(path, image.getvalue())
