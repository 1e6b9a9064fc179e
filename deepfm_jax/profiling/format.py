"""Formats numbers and values for the text report and the HTML page."""

_LONGEST = 40


def printable(value: str, longest: int = _LONGEST) -> str:
    r"""Escapes unprintable characters, such as ``\x1b``, and truncates a raw value."""
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in value
    )
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."


def percent(share: float | None) -> str:
    """A share as a percentage, 0% and 100% only if exact; a dash for None."""
    if share is None:
        return "-"
    if share in (0, 1):
        return f"{share:.0%}"
    if share < 0.0001:
        return "<0.01%"
    if share > 0.9999:
        return ">99.99%"
    return f"{share:.{2 if share < 0.001 or share > 0.999 else 1}%}"


def rate(share: float | None) -> str:
    """A positive rate, to four places; a dash for None."""
    return "-" if share is None else f"{share:.4f}"


def interval(low: float | None, high: float | None) -> str:
    """A 95% interval; a dash for None."""
    return "-" if low is None or high is None else f"[{low:.4f}, {high:.4f}]"
