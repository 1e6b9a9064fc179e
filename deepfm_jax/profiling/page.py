"""The report as one self-contained HTML page without scripts, with all values escaped.

The page is built as a tree of elements and then serialized, so that a raw value can only ever be
text in it.
"""

import base64
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from deepfm_jax.profiling.columns import ColumnReport
from deepfm_jax.profiling.format import interval, percent, printable, rate
from deepfm_jax.profiling.groups import Group
from deepfm_jax.profiling.inspect import Inspection
from deepfm_jax.profiling.numbers import SHOWN_PERCENTILES, number_text
from deepfm_jax.profiling.plots import column_plots

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --faint: #5c6570; --line: #d9dde2;
  --page: #ffffff; --stripe: #f5f7f9; --mark: #2f6db5; --base: #b4561a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e6ea; --faint: #9aa4af; --line: #3a4149;
  --page: #15181c; --stripe: #1d2126; --mark: #6ea8e8; --base: #e59358; } }
body { background: var(--page); color: var(--ink); margin: 0 auto; max-width: 78rem;
  padding: 1.5rem; font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.5rem 0 0.25rem; }
h2 code { font-size: inherit; } h3 { font-size: 0.95rem; margin: 1.25rem 0 0.25rem; }
p { margin: 0.35rem 0; } .faint, figcaption { color: var(--faint); } a { color: var(--mark); }
code { font: 0.93em ui-monospace, monospace; } h2 code { overflow-wrap: anywhere; }
section { border-top: 1px solid var(--line); margin-top: 2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { color: var(--faint); font-weight: 600; }
th, td { padding: 0.15rem 0.6rem; white-space: nowrap; text-align: right;
  border-bottom: 1px solid var(--line); }
th.left, td.left { text-align: left; } tbody tr:nth-child(even) { background: var(--stripe); }
td.rate { padding: 0 0.6rem; } td.rate svg { display: block; }
.bar { stroke: var(--mark); stroke-width: 2; } .dot { fill: var(--mark); }
.base { stroke: var(--base); stroke-width: 1; stroke-dasharray: 3 2; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0.75rem 0 0; }
figure img { max-width: 100%; height: auto; display: block; }
"""
_WIDTH, _HEIGHT = 220, 18


def to_html(inspection: Inspection) -> str:
    """Returns the whole page."""
    train = next(group for group in inspection.splits if group.name == "train")
    base_rate = train.rate or 0.0
    title = f"Inspection of {printable(inspection.dataset)}"
    source = "" if inspection.source is None else f"from {printable(inspection.source, 300)}, "
    body = _tag(
        "body",
        _tag("h1", title),
        _tag("p", f"{source}label ", _tag("code", printable(inspection.label)), class_="faint"),
        _splits(inspection),
        _tag("h3", "Columns"),
        _overview(inspection.columns),
        _notes(inspection.columns),
        *(
            _section(place, column, base_rate)
            for place, column in enumerate(inspection.columns, start=1)
        ),
    )
    head = _tag(
        "head",
        _tag("meta", charset="utf-8"),
        _tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _tag("title", title),
        _tag("style", _STYLE),
    )
    page = _tag("html", head, body, lang="en")
    return "<!DOCTYPE html>\n" + ElementTree.tostring(page, encoding="unicode", method="html")


def _tag(name: str, /, *children: Element | str, **attributes: str) -> Element:
    element = Element(name, {key.rstrip("_"): value for key, value in attributes.items()})
    for child in children:
        if isinstance(child, Element):
            element.append(child)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + child
        else:
            element.text = (element.text or "") + child
    return element


def _table(
    heading: Sequence[str], rows: Sequence[Sequence[Element | str]], left: int = 1
) -> Element:
    def row(kind: str, cells: Sequence[Element | str]) -> Element:
        built = []
        for place, cell in enumerate(cells):
            if isinstance(cell, Element) and cell.tag == "td":
                built.append(cell)
            else:
                built.append(_tag(kind, cell, **({"class_": "left"} if place < left else {})))
        return _tag("tr", *built)

    head, body = _tag("thead", row("th", heading)), _tag("tbody", *(row("td", r) for r in rows))
    return _tag("div", _tag("table", head, body), class_="wide")


def _splits(inspection: Inspection) -> Element:
    rows = [
        (
            group.name,
            f"{group.rows:,}",
            f"{rejected:,}",
            f"{group.positives:,}",
            rate(group.rate),
            interval(group.low, group.high),
        )
        for group, rejected in zip(inspection.splits, inspection.rejected, strict=True)
    ]
    heading = ("split", "rows", "rejected", "positives", "positive rate", "95% interval")
    return _table(heading, rows)


def _overview(columns: Sequence[ColumnReport]) -> Element:
    others = list(columns[0].drift) if columns else []
    heading = ["column", "kind", "values", "missing", "with id", "coverage"]
    heading += [f"unseen {split}" for split in others] + [f"PSI {split}" for split in others]
    rows = []
    for place, column in enumerate(columns, start=1):
        link = _tag("a", _tag("code", printable(column.name)), href=f"#column-{place}")
        kept = column.coverage
        drift = [column.drift[split] for split in others if split in column.drift]
        cells: list[Element | str] = [
            link,
            column.kind,
            f"{column.distinct:,}",
            percent(column.missing.share),
            "-" if kept is None else f"{kept.values:,}",
            percent(None if kept is None else kept.share),
            *(percent(found.unseen) for found in drift),
            *(f"{found.psi:.3f}" for found in drift),
        ]
        rows.append(cells)
    return _table(heading, rows, left=2)


def _notes(columns: Sequence[ColumnReport]) -> Element:
    return _tag(
        "p",
        "Values, counts and rates describe the training rows. With id: values that min_count and "
        "max_size keep; coverage: the share of rows with a value whose value has an id. Unseen: "
        "the share of a split's rows whose value does not occur in the training rows or, for "
        "numbers, is outside their range. PSI: the population stability index against train; below "
        "0.1 is stable, above 0.25 has shifted, and few rows raise it by chance. Intervals are "
        "95% Wilson intervals; the dashed line is the training rows' positive rate.",
        class_="faint",
    )


def _section(place: int, column: ColumnReport, base_rate: float) -> Element:
    parts: list[Element] = [
        _tag("h2", _tag("code", printable(column.name, 200))),
        _tag("p", column.kind, class_="faint"),
        _tag("p", *_summary(column)),
    ]
    plots = column_plots(column, base_rate)
    if plots:
        parts.append(_tag("div", *(_plot(title, svg) for title, svg in plots), class_="plots"))
    if column.coverages:
        parts += _coverages(column)
    if column.numbers is not None:
        parts += _numbers(column)
        parts += _groups("tenth of the rows", column.numbers.buckets, base_rate)
    parts += _groups("most frequent values", column.top, base_rate)
    if column.missing.rows:
        parts += _groups("rows without a value", (column.missing,), base_rate)
    if column.drift:
        parts += _drift(column)
    return _tag("section", *parts, id=f"column-{place}")


def _summary(column: ColumnReport) -> list[str]:
    facts = [f"{column.distinct:,} values in {column.rows:,} training rows"]
    facts.append(f"{percent(column.missing.share)} missing")
    if column.numbers is not None:
        found = column.numbers
        facts.append(f"mean {found.mean:.6g}, standard deviation {found.std:.6g}")
        facts.append(f"{percent(found.negative)} below 0, {percent(found.zero)} zero")
    if column.first is not None:
        facts = [f"{column.first} to {column.last} (UTC)", *facts[1:]]
    return ["; ".join(facts) + "."]


def _plot(title: str, svg: bytes) -> Element:
    data = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    return _tag("figure", _tag("figcaption", title), _tag("img", src=data, alt=title))


def _coverages(column: ColumnReport) -> list[Element]:
    rows = [
        (str(each.min_count), f"{each.values:,}", percent(each.share)) for each in column.coverages
    ]
    size = column.coverages[0].max_size
    limit = "" if size is None else f", at max_size {size:,}"
    heading = ("min_count", "values with an id", "coverage")
    return [_tag("h3", f"Coverage by min_count{limit}"), _table(heading, rows)]


def _numbers(column: ColumnReport) -> list[Element]:
    assert column.numbers is not None
    values = [number_text(column.numbers.percentiles[place]) for place in SHOWN_PERCENTILES]
    heading = [f"{place}%" for place in SHOWN_PERCENTILES]
    return [_tag("h3", "Percentiles"), _table(heading, [values], left=0)]


def _drift(column: ColumnReport) -> list[Element]:
    rows = [
        (
            split,
            percent(drift.missing),
            percent(drift.unseen),
            percent(drift.covered),
            f"{drift.psi:.4f}",
            f"{drift.psi_by_chance:.4f}",
        )
        for split, drift in column.drift.items()
    ]
    heading = ("split", "missing", "unseen", "coverage", "PSI", "PSI by chance")
    return [_tag("h3", "Against the training rows"), _table(heading, rows)]


def _groups(title: str, groups: Sequence[Group], base_rate: float) -> list[Element]:
    if not groups:
        return []
    top = max([base_rate, *(group.high or 0.0 for group in groups)]) or 1.0
    rows = [
        (
            _tag("code", printable(group.name)),
            f"{group.rows:,}",
            percent(group.share),
            rate(group.rate),
            interval(group.low, group.high),
            _tag("td", _interval_plot(group, base_rate, top), class_="rate"),
        )
        for group in groups
    ]
    heading = ("", "rows", "share", "positive rate", "95% interval", f"0 to {top:.3g}")
    return [_tag("h3", title.capitalize()), _table(heading, rows)]


def _interval_plot(group: Group, base_rate: float, top: float) -> Element:
    """Draws a rate and its interval on a line from 0 to ``top``."""

    def at(share: float) -> str:
        return f"{4 + (_WIDTH - 8) * share / top:.1f}"

    middle = str(_HEIGHT // 2)
    marks = [
        _tag("line", x1=at(base_rate), x2=at(base_rate), y1="0", y2=str(_HEIGHT), class_="base")
    ]
    if group.rate is not None and group.low is not None and group.high is not None:
        ends = {"x1": at(group.low), "x2": at(group.high)}
        marks.append(_tag("line", y1=middle, y2=middle, class_="bar", **ends))
        marks.append(_tag("circle", cx=at(group.rate), cy=middle, r="3.5", class_="dot"))
    return _tag("svg", *marks, width=str(_WIDTH), height=str(_HEIGHT), role="img")
