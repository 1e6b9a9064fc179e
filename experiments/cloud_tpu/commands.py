"""Runs external commands, captures or streams their output, and reports failures in one line."""

import shutil
import subprocess
import sys

from deepfm_jax.errors import UserError

_INSTALL = {"gcloud": "; see https://cloud.google.com/sdk/docs/install"}


class CommandError(UserError):
    """A command failed; ``reason`` is its own error message."""

    def __init__(self, command: list[str], status: int, reason: str):
        self.reason = reason
        name = " ".join(word for word in command[:5] if not word.startswith(("-", "/")))
        super().__init__(f"{name} failed with status {status}: {reason}")


def run(command: list[str], *, stream: bool = False) -> str:
    """Runs a command and returns its output; with ``stream``, passes the output on as it comes.

    Raises:
      UserError: the program is not installed.
      CommandError: the exit status is not 0; the reason is the error line, or else the last line.
    """
    if shutil.which(command[0]) is None:
        raise UserError(f"{command[0]} is not installed{_INSTALL.get(command[0], '')}")
    # If a signal reaches only this process, the with block still waits for the command: whoever
    # cleans up after it must find it ended.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=None if stream else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        if stream:
            output, lines = "", _pass_on(process)
        else:
            output, errors = process.communicate()
            lines = errors.splitlines()
    if process.returncode:
        filled = [line for line in lines if line.strip()]
        # After its error, gcloud may print several lines of advice.
        reasons = [line for line in filled if line.startswith("ERROR:")] or filled or ["no message"]
        raise CommandError(command, process.returncode, reasons[-1].removeprefix("ERROR: ").strip())
    return output.strip()


def _pass_on(process: subprocess.Popen[str]) -> list[str]:
    """Copies a process's stderr to ours until it ends; returns the last lines."""
    assert process.stderr is not None
    lines = []
    try:
        for line in process.stderr:
            sys.stderr.write(line)
            lines = [*lines[-50:], line]
        process.wait()
    except BaseException:
        # A streaming command may run for days.
        process.terminate()
        raise
    return lines
