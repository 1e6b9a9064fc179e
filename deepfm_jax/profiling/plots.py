"""Plots of a column as SVG, legible on light and dark pages."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter, PercentFormatter

from deepfm_jax.profiling.columns import ColumnReport
from deepfm_jax.profiling.groups import Group

# Colours of medium lightness: contrast of at least 3:1 on white and on near-black.
_INK, _BLUE, _ORANGE = "#7d7d7d", "#4a84cc", "#d9722b"
_SIZE = (5.2, 2.5)
_MOST_MARKS = 40


def column_plots(column: ColumnReport, base_rate: float) -> list[tuple[str, bytes]]:
    """Title and SVG of each plot of a column.

    No raw value is drawn: axes show only numbers, hours and dates.

    Args:
      column: Report of the column.
      base_rate: Positive rate of the training rows.
    """
    plots = []
    if column.numbers is not None:
        plots.append(("Spread of the numbers", _svg(_spread(column.numbers.percentiles))))
        title = "Positive rate by tenth of the rows"
        plots.append((title, _svg(_rates(column.numbers.buckets, base_rate))))
    if len(column.ranks) > 1:
        plots.append(("Rows covered by the most frequent values", _svg(_coverage(column))))
    if column.hours:
        plots.append(("By hour of the day", _svg(_rates_and_rows(column.hours, base_rate))))
    if len(column.days) > 1:
        plots.append(("By day", _svg(_rates_and_rows(column.days, base_rate))))
    return plots


def _spread(percentiles: Sequence[float]) -> Figure:
    figure, axes = _figure()
    axes.plot(percentiles, np.arange(101) / 100, color=_BLUE, linewidth=1.6, drawstyle="steps-post")
    smallest = min((abs(value) for value in percentiles if value), default=1.0)
    if max(map(abs, percentiles)) > 1000 * smallest:
        axes.set_xscale("symlog", linthresh=max(smallest, 1.0))
        _plain_ticks(axes)
    axes.set(xlabel="value", ylabel="rows up to it", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def _coverage(column: ColumnReport) -> Figure:
    figure, axes = _figure()
    ranks, shares = zip(*column.ranks, strict=True)
    axes.plot(ranks, shares, color=_BLUE, linewidth=1.6)
    kept = column.coverage
    if kept is not None and kept.values:
        axes.plot(
            [kept.values], [kept.share], "o", color=_ORANGE, label="kept at the options given"
        )
        axes.legend(frameon=False, fontsize="small", labelcolor=_INK, loc="lower right")
    axes.set_xscale("log")
    _plain_ticks(axes)
    axes.set(xlabel="values, the most frequent first", ylabel="rows covered", ylim=(0, 1.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def _rates(groups: Sequence[Group], base_rate: float) -> Figure:
    figure, axes = _figure()
    _draw_rates(axes, groups, base_rate)
    axes.set(xlabel="bucket, the least numbers first")
    axes.set_xticks(range(len(groups)), [str(place + 1) for place in range(len(groups))])
    return figure


def _rates_and_rows(groups: Sequence[Group], base_rate: float) -> Figure:
    figure, axes = _figure()
    rows = axes.twinx()
    rows.bar(
        range(len(groups)), [group.rows for group in groups], color=_INK, alpha=0.25, width=0.85
    )
    rows.set_ylabel("rows", color=_INK)
    _finish(rows)
    rows.grid(visible=False)
    axes.set_zorder(rows.get_zorder() + 1)
    _draw_rates(axes, groups, base_rate)
    every = -(-len(groups) // (8 if len(groups[0].name) < 3 else 5))
    axes.set_xticks(
        range(0, len(groups), every), [group.name for group in groups[::every]], fontsize="small"
    )
    return figure


def _draw_rates(axes: Axes, groups: Sequence[Group], base_rate: float) -> None:
    places = [place for place, group in enumerate(groups) if group.rate is not None]
    rates = [groups[place].rate or 0.0 for place in places]
    axes.axhline(base_rate, color=_INK, linewidth=1, linestyle="--")
    axes.plot(
        places,
        rates,
        color=_BLUE,
        linewidth=1,
        marker="o",
        ms=4 if len(places) < _MOST_MARKS else 2,
    )
    axes.vlines(
        places,
        [groups[place].low or 0.0 for place in places],
        [groups[place].high or 0.0 for place in places],
        color=_BLUE,
        linewidth=1.4,
        alpha=0.7,
    )
    axes.set_ylabel("positive rate")
    axes.set_ylim(bottom=0)


def _plain_ticks(axes: Axes) -> None:
    """Labels ticks as 1k instead of a power of ten, which would be drawn as a formula."""
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE)
    # Fixed margins, because computing them takes longer than everything else.
    figure.subplots_adjust(left=0.13, right=0.87, top=0.96, bottom=0.2)
    axes = figure.subplots()
    _finish(axes)
    return figure, axes


def _finish(axes: Axes) -> None:
    axes.patch.set_alpha(0)
    axes.grid(color=_INK, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.tick_params(colors=_INK, labelsize="small")
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)


def _svg(figure: Figure) -> bytes:
    image = io.BytesIO()
    # Text stays text, in the reader's font, which takes a quarter of the bytes of outlines. Without
    # a date and with a fixed salt, equal data give equal files.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "deepfm_jax"}):
        figure.savefig(image, format="svg", transparent=True, metadata={"Date": None})
    return image.getvalue()
