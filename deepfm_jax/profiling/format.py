"""Numbers and values as text and page show them."""

_LONGEST = 40


def printable(value: str, longest: int = _LONGEST) -> str:
    r"""A raw value without what would move a terminal's cursor (``\x1b``), cut to a length."""
    shown = "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in value
    )
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."


def percent(share: float | None) -> str:
    """A share as a percentage, 0% and 100% for none and all alone; a dash for None."""
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
