"""A session on a Cloud TPU slice: create, wait, install, run, delete, and again when it is lost.

A spot slice may be preempted at any time, and cannot be restarted: its queued resource is deleted
and asked for anew, and the command runs again from the start. A training goes on from its last
checkpoint where its workdir outlives the slice. Whatever happens, the slice is deleted at the end,
as it costs money as long as it exists.

Source: https://cloud.google.com/tpu/docs/queued-resources (states of a queued resource),
https://cloud.google.com/tpu/docs/spot (recreate after preemption).
"""

import contextlib
import dataclasses
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from deepfm_jax.errors import UserError
from experiments.cloud_tpu import slices
from experiments.cloud_tpu.commands import CommandError, run

# Of a queued resource and of a node: it will not come back. DELETING is not among them, since
# somebody wants the slice gone.
_LOST = {"FAILED", "SUSPENDING", "SUSPENDED", "PREEMPTED", "TERMINATED", "STOPPING", "STOPPED"}
# A preemption shows in the state a little later than in the broken connection, and one call of
# gcloud may fail by itself.
_LOOKS = 3


class SliceLostError(UserError):
    """The slice was preempted, or could not be provisioned."""


class Run(Protocol):
    """Runs a command, as ``commands.run`` does."""

    def __call__(self, command: list[str], *, stream: bool = False) -> str: ...


def tell(message: str) -> None:
    """Prints a line, if there is still somewhere to print it: a closed terminal is no reason."""
    with contextlib.suppress(OSError):
        print(message, flush=True)


@dataclasses.dataclass(frozen=True)
class Session:
    """The steps of a session, each a method, and ``session`` for all of them.

    Attributes:
      command: the shell command for all workers.
      wait_seconds: how long a slice may take to be there.
      poll_seconds: first interval between looks at its state; grows to six times that.
      retries: how often a lost slice is created again.
      keep: leave the slice where it is at the end.
      run: runs a command of this machine.
      say: tells how far it is.
    """

    tpu: slices.Slice
    command: str = ""
    wait_seconds: float = 6 * 3600
    poll_seconds: float = 10
    retries: int = 5
    keep: bool = False
    run: Run = run
    say: Callable[[str], None] = tell

    def session(self) -> None:
        """All steps; a lost slice is deleted and created again.

        Raises:
          UserError: a step failed, or the slice was lost more than ``retries`` times. It has been
            deleted all the same, unless ``keep``.
        """
        self._refuse_a_name_in_use()
        for attempt in range(self.retries + 1):
            try:
                self._once(again=attempt > 0)
            except SliceLostError as lost:
                self.delete()
                if attempt == self.retries:
                    raise UserError(f"{lost}; given up after {attempt} retries") from None
                self.say(f"{lost}; retry {attempt + 1} of {self.retries}")
                # The zone that took it back is short of chips just now.
                time.sleep(self.poll_seconds * min(2**attempt, 60))
            except BaseException:
                self._end_after_failure()
                raise
            else:
                if not self.keep:
                    self.delete()
                return

    def create(self) -> None:
        """Asks for the slice.

        Raises:
          UserError: gcloud refused, or there is one of that name.
        """
        self._refuse_a_name_in_use()
        self._create()

    def wait(self) -> None:
        """Waits until the workers can be reached.

        Raises:
          SliceLostError: the slice was preempted or could not be provisioned.
          UserError: it is not there in ``wait_seconds``, or is being deleted.
        """
        deadline = time.monotonic() + self.wait_seconds
        delay, last = self.poll_seconds, ""
        while (state := self._state()) != slices.ready_state(self.tpu):
            if state in _LOST:
                raise SliceLostError(f"slice {self.tpu.name} is {state}{self._why(state)}")
            if state == "DELETING":
                raise UserError(f"slice {self.tpu.name} is being deleted")
            if time.monotonic() + delay > deadline:
                raise UserError(
                    f"slice {self.tpu.name} is still {state} after {self.wait_seconds:g} seconds; "
                    "try another zone or type, or a longer --wait_seconds"
                )
            if state != last:
                self.say(f"slice {self.tpu.name}: {state}")
            last = state
            time.sleep(delay)
            delay = min(1.5 * delay, 6 * self.poll_seconds)
        self.say(f"slice {self.tpu.name}: {state}")

    def install(self) -> None:
        """Installs the project on all workers."""
        self.say(f"installing on all workers of {self.tpu.name}")
        for command in slices.install(self.tpu):
            self.run(command, stream=True)

    def start_and_follow(self) -> None:
        """Runs the command on all workers and streams their logs until it ends."""
        self.run(slices.start(self.tpu, self.command), stream=True)
        self.logs()

    def logs(self) -> None:
        """Streams the logs from their first line until the command ends."""
        self.run(slices.follow(self.tpu), stream=True)

    def delete(self) -> None:
        """Deletes the slice; one that is not there is deleted already.

        Raises:
          UserError: gcloud failed three times. The message has the command to do it by hand.
        """
        command = slices.delete(self.tpu)
        self.say(f"deleting slice {self.tpu.name}")
        with _uninterrupted():
            for look in range(_LOOKS):
                try:
                    self.run(command)
                    return
                except CommandError as error:
                    if _is_not_found(error):
                        return
                    if look == _LOOKS - 1:
                        raise UserError(
                            f"slice {self.tpu.name} could not be deleted and may go on costing "
                            f"money ({error.reason}); run: {shlex.join(command)}"
                        ) from None
                    time.sleep(self.poll_seconds)

    def _once(self, *, again: bool) -> None:
        try:
            self._create()
        except CommandError as error:
            # What was granted once may be refused for a while, by capacity or by quota.
            raise (SliceLostError(str(error)) if again else error) from None
        self.wait()
        try:
            self.install()
            self.start_and_follow()
        except CommandError:
            self._raise_if_lost()
            raise

    def _create(self) -> None:
        self.say(f"creating slice {self.tpu.name} ({self.tpu.accelerator_type})")
        self.run(slices.create(self.tpu))

    def _refuse_a_name_in_use(self) -> None:
        # Otherwise the end of this session would delete somebody else's slice.
        try:
            state = self.run(slices.describe(self.tpu, slices.state_field(self.tpu)))
        except CommandError as error:
            if _is_not_found(error):
                return
            raise
        raise UserError(
            f"slice {self.tpu.name} exists already ({state}); choose another --name, use it by "
            "--step=install and --step=run, or delete it by --step=delete"
        )

    def _state(self) -> str:
        command = slices.describe(self.tpu, slices.state_field(self.tpu))
        for _ in range(_LOOKS - 1):
            try:
                return self.run(command)
            except CommandError as error:
                if _is_not_found(error):
                    raise
                time.sleep(self.poll_seconds)
        return self.run(command)

    def _why(self, state: str) -> str:
        if state != "FAILED" or not self.tpu.queued:
            return ""
        with contextlib.suppress(CommandError):
            message = self.run(slices.describe(self.tpu, "state.failedData.error.message"))
            return f" ({' '.join(message.split())})" if message else ""
        return ""

    def _raise_if_lost(self) -> None:
        self.say(f"a command failed; looking whether slice {self.tpu.name} is lost")
        commands = [slices.describe_node(self.tpu)]
        if self.tpu.queued:
            commands.insert(0, slices.describe(self.tpu, slices.state_field(self.tpu)))
        for look in range(_LOOKS):
            if look:
                time.sleep(self.poll_seconds)
            for command in commands:
                with contextlib.suppress(CommandError):
                    if (state := self.run(command)) in _LOST:
                        raise SliceLostError(f"slice {self.tpu.name} is {state}")

    def _end_after_failure(self) -> None:
        if self.keep:
            self.say(f"slice {self.tpu.name} is kept; --step=delete deletes it")
            return
        try:
            self.delete()
        except UserError as error:
            # The failure before it is the one to raise; this one must not go unsaid.
            self.say(f"error: {error}")


def _is_not_found(error: CommandError) -> bool:
    return "NOT_FOUND" in error.reason or "not found" in error.reason


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not stop the deletion; gcloud, started inside, inherits this."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.signal(number, signal.SIG_IGN) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, handler)
