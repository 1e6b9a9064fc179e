"""How messages display cells and column names: always short, whatever the file contains."""

import difflib
from collections.abc import Sequence

_CHARACTERS = 60
_NAMES, _FIRST_NAMES = 20, 5


def shown(text: str) -> str:
    """A cell or a name in quotes, truncated if it is long."""
    return repr(text) if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]!r}..."


def shown_names(names: Sequence[str], sought: str | None = None) -> str:
    """Column names; a long list is cut to the first few, a count and the closest to ``sought``.

    Args:
      names: Names of all columns.
      sought: A name that is not among them.
    """
    if len(names) <= _NAMES:
        return ", ".join(map(plain, names))
    listed = ", ".join(map(plain, names[:_FIRST_NAMES]))
    listed += f" and {len(names) - _FIRST_NAMES:,} others"
    # Comparing two names takes time proportional to the product of their lengths.
    short = [name for name in names if len(name) <= _CHARACTERS]
    close = difflib.get_close_matches(sought[:_CHARACTERS], short, n=1) if sought else []
    return f"{listed} (closest match: {close[0]})" if close else listed


def plain(name: str) -> str:
    """A cell or a name verbatim, or in quotes if it is truncated or unprintable."""
    return name if len(name) <= _CHARACTERS and name.isprintable() else shown(name)
