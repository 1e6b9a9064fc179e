"""The report as aligned text, for a terminal."""

from collections.abc import Sequence

from deepfm_jax.profiling.columns import ColumnReport
from deepfm_jax.profiling.format import interval, percent, printable, rate
from deepfm_jax.profiling.groups import Group
from deepfm_jax.profiling.inspect import Inspection
from deepfm_jax.profiling.numbers import SHOWN_PERCENTILES, number_text

_SHOWN_VALUES = 10
_SHOWN_DAYS = 31


def describe(inspection: Inspection) -> str:
    """Describes the splits, then all columns in one line each, then each column in detail."""
    blocks = [_splits(inspection), _overview(inspection.columns)]
    blocks += [_column(column) for column in inspection.columns]
    return "\n\n".join(blocks) + "\n"


def aligned(rows: Sequence[Sequence[str]], left: int = 1, indent: str = "") -> str:
    """Aligns cells in columns, the first ``left`` of them flush left, with a heading row."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def _splits(inspection: Inspection) -> str:
    rows = [("split", "rows", "rejected", "positive rate", "95% interval")]
    for group, rejected in zip(inspection.splits, inspection.rejected, strict=True):
        rows.append(
            (
                group.name,
                f"{group.rows:,}",
                f"{rejected:,}",
                rate(group.rate),
                interval(group.low, group.high),
            )
        )
    source = "" if inspection.source is None else f" from {printable(inspection.source, 200)}"
    title = f"{inspection.dataset}{source}, label {printable(inspection.label)}"
    return f"{title}\n\n{aligned(rows)}"


def overview_cells(column: ColumnReport) -> tuple[str, ...]:
    """The cells of a column in the overview, under the headings ``OVERVIEW``."""
    drift = column.drift
    return (
        printable(column.name),
        column.kind,
        f"{column.distinct:,}",
        percent(column.missing.share),
        "-" if column.coverage is None else f"{column.coverage.values:,}",
        percent(None if column.coverage is None else column.coverage.share),
        ", ".join(percent(found.unseen) for found in drift.values()) or "-",
        ", ".join(f"{found.psi:.3f}" for found in drift.values()) or "-",
    )


OVERVIEW = ("column", "kind", "values", "missing", "with id", "coverage", "unseen", "PSI")


def _overview(columns: Sequence[ColumnReport]) -> str:
    others = " and ".join(columns[0].drift) if columns else ""
    note = (
        "values: distinct values in train; with id: values that min_count and max_size keep; "
        "coverage: share of rows with these values\n"
        f"unseen, PSI: {others or 'no other split'} against train (PSI: below 0.1 is stable, "
        "above 0.25 has shifted)"
    )
    return aligned([OVERVIEW, *map(overview_cells, columns)], left=2) + f"\n\n{note}"


def _column(column: ColumnReport) -> str:
    missing = column.missing
    lines = [
        f"{printable(column.name)}: {column.kind}",
        f"  {column.distinct:,} values in {column.rows:,} training rows, {percent(missing.share)} "
        "missing"
        + (
            f" with positive rate {rate(missing.rate)} {interval(missing.low, missing.high)}"
            if missing.rows
            else ""
        ),
    ]
    if column.coverages:
        at = ", ".join(
            f"{each.min_count}: {each.values:,} values {percent(each.share)}"
            for each in column.coverages
        )
        lines.append(f"  coverage at min_count {at}")
    lines += _numbers(column)
    if column.first is not None:
        lines.append(f"  from {column.first} to {column.last} (UTC)")
    for split, drift in column.drift.items():
        parts = [f"{percent(drift.missing)} missing"]
        if drift.unseen is not None:
            kind = "outside the range of train" if column.numbers else "unseen in train"
            parts.append(f"{percent(drift.unseen)} {kind}")
        if drift.covered is not None:
            parts.append(f"coverage {percent(drift.covered)}")
        parts.append(f"PSI {drift.psi:.4f} (by chance {drift.psi_by_chance:.4f})")
        lines.append(f"  {split}: {', '.join(parts)}")
    if column.numbers is not None:
        lines.append(_groups("tenth of the rows", column.numbers.buckets))
    lines.append(_groups("most frequent", column.top[:_SHOWN_VALUES]))
    lines.append(_groups("hour of the day", column.hours))
    lines.append(_groups("day", column.days[-_SHOWN_DAYS:]))
    if len(column.days) > _SHOWN_DAYS:
        lines.append(f"  and {len(column.days) - _SHOWN_DAYS:,} days before")
    return "\n".join(line for line in lines if line)


def _numbers(column: ColumnReport) -> list[str]:
    found = column.numbers
    if found is None:
        return []
    at = ", ".join(
        f"{percentile}%: {number_text(found.percentiles[percentile])}"
        for percentile in SHOWN_PERCENTILES
    )
    return [
        f"  mean {found.mean:.6g}, standard deviation {found.std:.6g}, "
        f"{percent(found.negative)} below 0, {percent(found.zero)} zero",
        f"  percentiles {at}",
    ]


def _groups(title: str, groups: Sequence[Group]) -> str:
    if not groups:
        return ""
    rows = [(title, "rows", "share", "positive rate", "95% interval")]
    rows += [
        (
            printable(group.name),
            f"{group.rows:,}",
            percent(group.share),
            rate(group.rate),
            interval(group.low, group.high),
        )
        for group in groups
    ]
    return aligned(rows, indent="  ")
