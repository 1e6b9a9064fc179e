"""Numbers and values as text and page show them."""

_LONGEST = 40


def printable(value: str, longest: int = _LONGEST) -> str:
    r"""A raw value without what would move a terminal's cursor (``\x1b``), cut to a length."""
    shown = "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in value
    )
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."


def percent(share: float | None) -> str:
    """A share as a percentage, with more digits where it is near 0 or 1; a dash for None."""
    if share is None:
        return "-"
    near = min(share, 1 - share)
    digits = 2 if 0 < near < 0.001 else 1
    return f"{share:.{digits}%}"


def rate(share: float | None) -> str:
    """A positive rate, to four places; a dash for None."""
    return "-" if share is None else f"{share:.4f}"


def interval(low: float | None, high: float | None) -> str:
    """A 95% interval; a dash for None."""
    return "-" if low is None or high is None else f"[{low:.4f}, {high:.4f}]"
