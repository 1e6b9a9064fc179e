"""The exceptions for mistakes that a user can fix: a bad row, file, option or workdir."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the user's input, described in one line: what, where, and what to do.

    Launchers print it on stderr and exit with status 2; it never carries a stack trace from
    inside XLA or TensorFlow.
    """


class PreemptedError(UserError):
    """The scheduler reclaims its machines; a checkpoint is saved, and a restart resumes from it.

    Launchers exit with status 75, which tells a scheduler that a retry makes sense.
    """


class PeerError(UserError):
    """Another process of the job failed, and this one ends for that reason alone."""


def describe(error: BaseException) -> str:
    """What went wrong, in one line: a ``UserError`` speaks for itself, any other has its name."""
    if isinstance(error, UserError):
        return one_line(error) or "refused"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"{type(error).__name__}: {one_line(error)}"


def suggest(name: object, known: Iterable[str]) -> str:
    """Returns what a message says beside an unknown name: the known name most like it, or all."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(known)}"


def one_line(error: BaseException) -> str:
    """The message of an error in one line, to quote in a ``UserError``."""
    return " ".join(str(error).split())
