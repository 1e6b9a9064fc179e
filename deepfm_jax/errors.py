"""The exception for mistakes that a user can fix: a bad row, file, option or workdir."""


class UserError(ValueError):
    """A mistake in the user's input, described in one line: what, where, and what to do.

    Launchers print it on stderr and exit with status 2; it never carries a stack trace from
    inside XLA or TensorFlow.
    """


class PreemptedError(UserError):
    """The scheduler reclaims its machines; a checkpoint is saved, and a restart resumes from it.

    Launchers exit with status 75, which tells a scheduler that a retry makes sense.
    """


def one_line(error: BaseException) -> str:
    """The message of an error in one line, to quote in a ``UserError``."""
    return " ".join(str(error).split())
