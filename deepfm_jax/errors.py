"""The one exception for what a user can mend: a bad row, file, option or workdir."""


class UserError(ValueError):
    """A mistake in the user's input, told in one line: what, where, and what to do.

    Launchers print it on stderr and exit with status 2; it never carries a stack trace from
    inside XLA or TensorFlow.
    """


class PreemptedError(UserError):
    """The scheduler wants its machines back; a checkpoint is saved, and a new start goes on there.

    Launchers exit with status 75, by which a scheduler knows that another try makes sense.
    """


def one_line(error: BaseException) -> str:
    """What an error says, in one line, to stand in a ``UserError``."""
    return " ".join(str(error).split())
