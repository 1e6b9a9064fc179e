"""Reports of a comparison: tables and a figure, both made from its ``results.json``."""

import io
import os
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from deepfm_jax.files import write_atomically

_BLUE, _ORANGE, _INK = "#3b6fb6", "#d9722b", "#555555"
_DPI = 150
_SEPARATES = {True: "yes", False: "no", None: "-"}
_METRICS = {"auc": ("AUC", "higher is better"), "logloss": ("logloss", "lower is better")}


def comparison_tables(results: Mapping[str, Any]) -> str:
    """Metrics of each model, their differences from the baseline, and the oracle's if known.

    The models that failed and the runs of the workdir that were not named come last.

    Args:
      results: What ``compare`` returns.
    """
    parts = [_metrics_table(results)]
    if len(results["models"]) > 1:
        parts.append(_difference_table(results))
    if "oracle" in results:
        parts.append(_oracle_lines(results))
    if results["failed"]:
        parts.append(f"failed and not compared: {failures(results['failed'])}")
    if results["left_out"]:
        parts.append(_left_out_line(results))
    return "\n\n".join(parts)


def failures(failed: Mapping[str, Any]) -> str:
    """One line on the failures and what to do; ``failed`` is from the results of ``compare``."""
    errors = "; ".join(
        f"{label}, seed {failure['seed']}: {failure['error']}" for label, failure in failed.items()
    )
    return f"{errors}; finished runs are kept; continue with --models without {', '.join(failed)}"


def save_comparison_plot(results: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes ``comparison_figure(results)`` as a PNG, replacing ``path`` atomically."""
    image = io.BytesIO()
    comparison_figure(results).savefig(image, format="png", dpi=_DPI)
    write_atomically(path, image.getvalue())


def comparison_figure(results: Mapping[str, Any]) -> Figure:
    """AUC and logloss on ``test``: a row for each model, a dot for each seed.

    The bar is the interval of the *difference* from the baseline, drawn from the baseline's mean:
    it does not reach the baseline's line if the model separates from it. Intervals of the means
    themselves would overlap even then, because the models share the examples and most of their
    chance. A model far from the baseline and the rest is an arrow at the edge, to leave them room.
    """
    labels = list(results["models"])
    compared = _compared(results)
    lines = -(-len(compared) // 2)
    figure = Figure(figsize=(11.0, 1.4 + lines * (0.5 + 0.42 * len(labels))), layout="constrained")
    panels = figure.subplots(lines, 2, sharey=True, squeeze=False).flat
    for axes, (metric, title, direction) in zip(panels, compared, strict=True):
        _draw_metric(axes, results, metric)
        axes.set(title=f"{title} ({direction})")
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].set_ylim(len(labels) - 0.4, -0.6)
    rows = results["dataset"]["rows"]["test"]
    figure.suptitle(
        f"{results['dataset']['name']}: {rows:,} test examples, {len(results['seeds'])} "
        f"{'seed' if len(results['seeds']) == 1 else 'seeds'}"
    )
    figure.legend(
        *_legend(panels), loc="outside lower center", ncols=5, frameon=False, fontsize="small"
    )
    return figure


def _compared(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Key, title and direction of each compared metric."""
    found = []
    for key in results["metrics"]:
        task, _, metric = key.rpartition("/")
        title, direction = _METRICS[metric]
        found.append((key, f"{task} {title}".strip(), direction))
    return found


def _draw_metric(axes: Axes, results: Mapping[str, Any], metric: str) -> None:
    baseline = results["baseline"]
    level = results["bootstrap"]["level"]
    line = results["models"][baseline]["test"][metric]["mean"]
    axes.axvline(line, color=_INK, linewidth=1, linestyle=":", label=f"mean of {baseline}")
    far = _far_models(results, metric)
    texts = []
    for row, (label, model) in enumerate(results["models"].items()):
        mean, difference = model["test"][metric]["mean"], model["difference"]
        texts.append(f"{mean:.4f}" + ("" if difference is None else _signed(difference[metric])))
        if label in far:
            place, marker = (0.015, "<") if mean < line else (0.985, ">")
            axes.plot(
                place, row, marker, color=_ORANGE, markersize=8, label="beyond the axis",
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
            continue
        seeds = [run["metrics"]["test"][metric] for run in model["runs"].values()]
        # Seeds above, mean and bar below, so that they do not hide each other.
        axes.plot(
            seeds, [row - 0.17] * len(seeds), "o", color=_BLUE, markersize=5, alpha=0.6, mew=0,
            label="one seed",
        )  # fmt: skip
        separates = difference is not None and difference[metric]["separates"]
        if difference is not None:
            low, high = (line + end for end in difference[metric]["interval"])
            axes.plot(
                [low, high], [row + 0.17] * 2, "|-", color=_ORANGE, linewidth=1.8, markersize=7,
                label=f"{level:.0%} interval of the difference from {baseline}",
            )  # fmt: skip
        axes.plot(
            mean, row + 0.17, "D", color=_ORANGE, markersize=6, zorder=3,
            markerfacecolor=_ORANGE if separates else "white",
            label=f"mean, filled if it separates from {baseline}",
        )  # fmt: skip
    # The numbers are outside the axes, where no dot can overlap them.
    values = axes.secondary_yaxis("right")
    values.set_yticks(range(len(texts)), texts, fontsize="small")
    values.tick_params(length=0)
    values.spines["right"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    # Plain numbers, since an offset such as "+9.8e-1" beside the axis hides the metric.
    axes.ticklabel_format(axis="x", useOffset=False, style="plain")
    axes.margins(x=0.06)
    axes.grid(color="#e3e3e3", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _far_models(results: Mapping[str, Any], metric: str) -> set[str]:
    """Models more than five times the median distance away from the baseline."""
    means = {label: model["test"][metric]["mean"] for label, model in results["models"].items()}
    distances = {
        label: abs(mean - means[results["baseline"]])
        for label, mean in means.items()
        if label != results["baseline"]
    }
    if len(distances) < 4:
        return set()
    limit = 5 * statistics.median(distances.values())
    return {label for label, distance in distances.items() if distance > limit}


def _legend(panels: Iterable[Axes]) -> tuple[list, list]:
    """Handles and labels without duplicates; a filled mean takes precedence over a hollow one."""
    handles = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            filled = isinstance(handle, Line2D) and handle.get_markerfacecolor() == _ORANGE
            if filled or label not in handles:
                handles[label] = handle
    return list(handles.values()), list(handles)


def _signed(difference: Mapping[str, Any]) -> str:
    return f"  ({difference['mean']:+.4f})"


def _metrics_table(results: Mapping[str, Any]) -> str:
    """Metrics of each model, averaged over tasks if there are several."""
    columns = (
        ("auc", "test AUC", 5),
        ("logloss", "logloss", 5),
        ("normalized_entropy", "norm. entropy", 4),
        ("calibration", "calibration", 3),
    )
    width = _label_width(results)
    cells = [f"{'model':{width}}", *(f"{title:>20}" for _, title, _ in columns)]
    titles = (f"{'epochs':>14}", f"{'parameters':>14}", f"{'train examples/s':>18}")
    lines = ["".join([*cells, *titles])]
    for label, model in results["models"].items():
        cells = [f"{label:{width}}"]
        for metric, _, digits in columns:
            mean, std = model["test"][metric]["mean"], model["test"][metric]["std"]
            spread = "" if std is None else f" ± {std:.{digits}f}"
            cells.append(f"{f'{mean:.{digits}f}{spread}':>20}")
        rate, stage = model["train_examples_per_second"], model["pretraining_epochs"]
        epochs = [f"{passes:.1f}" for passes in (stage, model["epochs"]) if passes is not None]
        cells.append(f"{' + '.join(epochs):>14}")
        cells.append(f"{model['parameters']:14,}")
        cells.append(f"{'-':>18}" if rate is None else f"{rate:18,.0f}")
        lines.append("".join(cells))
    return "\n".join(lines)


def _difference_table(results: Mapping[str, Any]) -> str:
    settings, seeds = results["bootstrap"], len(results["seeds"])
    drawn = "examples and seeds" if seeds > 1 else "examples"
    width = max(_label_width(results), len(results["baseline"]) + 8)
    lines = [
        f"{'minus ' + results['baseline']:{width}}"
        + "".join(f"{title:>34}{'separates':>11}" for _, title, _ in _compared(results))
    ]
    for label, model in results["models"].items():
        if model["difference"] is None:
            continue
        cells = [f"{label:{width}}"]
        for metric, _, _ in _compared(results):
            difference = model["difference"][metric]
            low, high = difference["interval"]
            text = f"{difference['mean']:+.5f} [{low:+.5f}, {high:+.5f}]"
            cells.append(f"{text:>34}{_SEPARATES[difference['separates']]:>11}")
        lines.append("".join(cells))
    lines.append(
        f"{settings['level']:.0%} intervals from a paired bootstrap over {drawn}, "
        f"{settings['resamples']:,} resamples"
    )
    if seeds == 1:
        lines.append("one seed does not show the spread between seeds, nor what separates")
    count = (len(results["models"]) - 1) * len(results["metrics"])
    lines.append(f"{count} comparisons; the intervals are not widened for multiple comparisons")
    return "\n".join(lines)


def _left_out_line(results: Mapping[str, Any]) -> str:
    runs = "; ".join(
        f"{label}, {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
        for label, seeds in results["left_out"].items()
    )
    return f"finished in this workdir but not named, so not in this report: {runs}"


def _oracle_lines(results: Mapping[str, Any]) -> str:
    oracle, width = results["oracle"], _label_width(results)
    lines = [
        f"the best possible test AUC is {oracle['auc']:.5f} and logloss {oracle['logloss']:.5f}; "
        "share of the way there from the base rate:"
    ]
    for label, model in results["models"].items():
        covered = model["oracle_coverage"]
        lines.append(
            f"{label:{width}}{covered['auc']:7.1%} (AUC){covered['logloss']:8.1%} (logloss)"
        )
    return "\n".join(lines)


def _label_width(results: Mapping[str, Any]) -> int:
    return max(map(len, ("model", *results["models"]))) + 2
