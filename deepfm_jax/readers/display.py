"""Cells and names of columns as messages show them: short, whatever the file holds."""

import difflib
from collections.abc import Sequence

_CHARACTERS = 60
_NAMES, _FIRST_NAMES = 20, 5


def shown(text: str) -> str:
    """A cell or a name in quotes, cut where it is long."""
    return repr(text) if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]!r}..."


def shown_names(names: Sequence[str], sought: str | None = None) -> str:
    """The names of columns; of many the first and their number, and the one most like ``sought``.

    Args:
      names: Of all columns.
      sought: A name that is not among them.
    """
    if len(names) <= _NAMES:
        return ", ".join(map(plain, names))
    told = ", ".join(map(plain, names[:_FIRST_NAMES]))
    told += f" and {len(names) - _FIRST_NAMES:,} others"
    # How alike two names are takes as long as the product of their lengths.
    short = [name for name in names if len(name) <= _CHARACTERS]
    near = difflib.get_close_matches(sought[:_CHARACTERS], short, n=1) if sought else []
    return f"{told} (most like it: {near[0]})" if near else told


def plain(name: str) -> str:
    """A cell or a name as it is, but in quotes where it is cut or cannot be printed."""
    return name if len(name) <= _CHARACTERS and name.isprintable() else shown(name)
