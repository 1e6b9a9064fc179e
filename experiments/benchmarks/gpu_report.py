"""The results of ``gpu_session`` as text and as a plot."""

from collections.abc import Iterable
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

Record = dict[str, Any]
# Parts that explain why a result is missing.
_UNFINISHED = ("skipped", "cut", "failed")


def line(record: Record) -> str:
    """Formats a result on one line, to show progress."""
    part = record["part"]
    if part == "check":
        return f"{_verdict(record):8} {record['name']}: {_difference(record)}{record['note']}"
    if part == "speed":
        return f"{_case(record)}: {_milliseconds(record)}"
    if part == "profile":
        return f"{_case(record)}: {record['kernel_milliseconds']:.2f} ms in kernels"
    if part in _UNFINISHED:
        return f"{part} {record.get('name', '')}: {record['reason']}"
    shown = (f"{key} {_number(value)}" for key, value in record.items() if key != "part")
    return f"{part}: {', '.join(shown)}"


def text(records: list[Record]) -> str:
    """Formats all results as aligned tables."""
    of: dict[str, list[Record]] = {}
    for record in records:
        of.setdefault(record["part"], []).append(record)
    sections = [_checks(of.get("check", [])), _rates(of.get("rates", []))]
    sections += [_speed(of.get("speed", [])), _profiles(of.get("profile", []))]
    sections += [[line(record) for record in of.get(part, [])] for part in ("copies", "scoring")]
    sections += [[line(record) for record in of.get(part, [])] for part in _UNFINISHED]
    return "\n\n".join("\n".join(section) for section in sections if section)


def plot(records: Iterable[Record]) -> Figure:
    """Plots milliseconds per step against V, with a panel per batch size and precision."""
    speeds = [r for r in records if r["part"] == "speed" and "milliseconds" in r]
    batches = sorted({r["batch"] for r in speeds}, reverse=True) or [0]
    precisions = ("bfloat16", "tf32", "float32")
    figure = Figure(figsize=(14.0, 3.4 * len(batches)), layout="constrained")
    panels = figure.subplots(len(batches), len(precisions), squeeze=False, sharey="row")
    systems = sorted(
        {_system(r) for r in speeds}, key=lambda name: (not name.startswith("ours"), name)
    )
    colours = dict(zip(systems, colormaps["tab10"].colors, strict=False))  # pyright: ignore[reportAttributeAccessIssue]
    for row, batch in enumerate(batches):
        for column, precision in enumerate(precisions):
            axes = panels[row][column]
            here = [r for r in speeds if (r["batch"], r["precision"]) == (batch, precision)]
            for system in dict.fromkeys(map(_system, here)):
                points = sorted(
                    (r["rows"], r["milliseconds"]) for r in here if _system(r) == system
                )
                ours = system.startswith("ours")
                axes.plot(
                    *zip(*points, strict=True),
                    marker="o",
                    color=colours[system],
                    linewidth=2.2 if ours else 1.2,
                    linestyle="-" if ours else "--",
                    label=system,
                )
            floors = sorted({(r["rows"], r["floor_milliseconds"]) for r in here if "sums" in r})
            if floors:
                least = {rows: min(f for v, f in floors if v == rows) for rows, _ in floors}
                axes.plot(
                    *zip(*least.items(), strict=True), color="0.5", linestyle=":", label="floor"
                )
            axes.set(xscale="log", yscale="log", title=f"batch {batch:,}, {precision}")
            axes.set_xlabel("rows of the table")
            axes.grid(color="#e3e3e3", linewidth=0.7, which="both")
        panels[row][0].set_ylabel("milliseconds of a step")
    # One legend beside all panels: inside a panel it would hide lines.
    shown = {drawn.get_label(): drawn for axes in panels.flat for drawn in axes.lines}
    if shown:
        figure.legend(shown.values(), shown.keys(), loc="outside right upper", frameon=False)
    return figure


def _checks(checks: list[Record]) -> list[str]:
    if not checks:
        return []
    failed = [record for record in checks if record["passed"] is False]
    passed = sum(record["passed"] is True for record in checks)
    title = f"correctness: {passed} passed, {len(failed)} failed, {len(checks)} in all"
    return [title, *("  " + line(record) for record in checks)]


def _rates(rates: list[Record]) -> list[str]:
    return [
        f"{r['device']}, JAX {r['jax']}, as measured here: "
        + ", ".join(f"{r[p] / 1e12:.3g} TFLOP/s in {p}" for p in ("bfloat16", "tf32", "float32"))
        + f", copies {r['bytes'] / 1e12:.3g} TB/s"
        for r in rates
    ]


def _speed(speeds: list[Record]) -> list[str]:
    if not speeds:
        return []
    lines = [
        f"{'batch':>7} {'rows':>12}  {'precision':9}  {'system':34}{'ms':>9}{'floor':>9}"
        f"{'x floor':>9}{'GFLOP':>8}{'GB':>7}{'peer/ours':>11}"
    ]
    order = ("batch", "rows", "precision")
    for r in sorted(speeds, key=lambda r: (*(str(r[k]).rjust(12) for k in order), _system(r))):
        head = f"{r['batch']:7,} {r['rows']:12,}  {r['precision']:9}  {_system(r):34}"
        if "milliseconds" not in r:
            lines.append(f"{head}  {r['failed']}")
            continue
        cells = f"{r['milliseconds']:9.3f}"
        if "floor_milliseconds" in r:
            cells += f"{r['floor_milliseconds']:9.3f}"
            cells += f"{r['milliseconds'] / r['floor_milliseconds']:9.2f}"
            cells += f"{r['gigaflops']:8.1f}{r['gigabytes']:7.2f}{_ratio(r, speeds):>11}"
        lines.append(head + cells)
    lines.append("peer/ours: time of PyTorch's fastest in the same precision, divided by ours")
    return lines


def _ratio(ours: Record, speeds: list[Record]) -> str:
    case = ("batch", "rows", "precision")
    theirs = [
        r["milliseconds"]
        for r in speeds
        if r["system"] != "ours" and "milliseconds" in r and all(r[k] == ours[k] for k in case)
    ]
    return f"{min(theirs) / ours['milliseconds']:.2f}" if theirs else ""


def _profiles(profiles: list[Record]) -> list[str]:
    lines = []
    for r in profiles:
        lines.append(
            f"{_case(r)}: {r['kernel_milliseconds']:.3f} ms in {r['different_kernels']} kernels, "
            f"peak memory {r['peak_gigabytes']:.2f} GB, of which temporary "
            f"{r['temporary_gigabytes']:.2f} GB, compiled in {r['compile_seconds']:.1f} s"
        )
        lines += [
            f"  {k['milliseconds']:9.4f} ms  {k['name']}  {k['source']}" for k in r["kernels"]
        ]
    return lines


def _system(record: Record) -> str:
    if record["system"] != "ours":
        return record["system"]
    return f"ours {record['optimizer']}, {record['sums'].replace('_', ' ')}"


def _case(record: Record) -> str:
    system = _system(record) if "system" in record else record["optimizer"]
    precision = record.get("precision", "bfloat16")
    return f"batch {record['batch']:,}, {record['rows']:,} rows, {precision}, {system}"


def _milliseconds(record: Record) -> str:
    if "milliseconds" not in record:
        return record["failed"]
    floor = record.get("floor_milliseconds")
    beside = f" ({record['milliseconds'] / floor:.2f} times the floor)" if floor else ""
    return f"{record['milliseconds']:.3f} ms{beside}"


def _verdict(record: Record) -> str:
    return {True: "passed", False: "FAILED", None: "found"}[record["passed"]]


def _difference(record: Record) -> str:
    if "difference" not in record:
        return ""
    allowed = "" if record["allowed"] is None else f" of at most {record['allowed']:.1e}"
    return f"{record['difference']:.1e}{allowed}, "


def _number(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
