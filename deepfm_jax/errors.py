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
    """Another process of the job failed, which is the only reason why this one ends."""


def describe(error: BaseException) -> str:
    """Describes an error in one line, with the exception's name unless it is a ``UserError``."""
    if isinstance(error, UserError):
        return one_line(error) or "refused"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"{type(error).__name__}: {one_line(error)}"


def suggest(name: object, known: Iterable[str]) -> str:
    """Suggests the known name closest to an unknown one, or lists all; for error messages."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(known)}"


def one_line(error: BaseException) -> str:
    """The message of an error in one line, to quote in a ``UserError``."""
    return " ".join(str(error).split())
