"""A session on a Cloud TPU slice: create, wait, install, run, delete; repeated if it is lost.

A spot slice may be preempted at any time, and cannot be restarted: its queued resource is deleted
and requested anew, and the command runs again from the start. Training continues from its last
checkpoint if its workdir outlives the slice. Whatever happens, the slice is deleted at the end,
because it costs money as long as it exists.

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

# States of a queued resource or a node that will not come back. DELETING is not one of them,
# because then somebody wants the slice gone.
_LOST = {"FAILED", "SUSPENDING", "SUSPENDED", "PREEMPTED", "TERMINATED", "STOPPING", "STOPPED"}
# The state shows a preemption a little later than the connection breaks, and a single call of
# gcloud may fail for other reasons.
_ATTEMPTS = 3


class SliceLostError(UserError):
    """The slice was preempted, or could not be provisioned."""


class Run(Protocol):
    """Runs a command like ``commands.run``."""

    def __call__(self, command: list[str], *, stream: bool = False) -> str: ...


def tell(message: str) -> None:
    """Prints a line; a closed terminal is not an error."""
    with contextlib.suppress(OSError):
        print(message, flush=True)


@dataclasses.dataclass(frozen=True)
class Session:
    """The steps of a session, one method each, and ``session`` for all of them.

    Attributes:
      command: Shell command for all workers.
      wait_seconds: How long to wait for a slice.
      poll_seconds: First interval between polls of its state; grows to six times that.
      retries: How often to create a lost slice again.
      keep: Whether to keep the slice at the end.
      run: Runs a command on this machine.
      say: Reports progress.
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
        """Runs all steps; deletes a lost slice and creates it again.

        Raises:
          UserError: a step failed, or the slice was lost more than ``retries`` times. The slice
            has been deleted nevertheless, unless ``keep`` is set.
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
                # The zone that reclaimed it is short of chips at the moment.
                time.sleep(self.poll_seconds * min(2**attempt, 60))
            except BaseException:
                self._end_after_failure()
                raise
            else:
                if not self.keep:
                    self.delete()
                return

    def create(self) -> None:
        """Requests the slice.

        Raises:
          UserError: gcloud refuses, or a slice of that name exists.
        """
        self._refuse_a_name_in_use()
        self._create()

    def wait(self) -> None:
        """Waits until the workers can be reached.

        Raises:
          SliceLostError: the slice was preempted or could not be provisioned.
          UserError: the slice is not ready within ``wait_seconds``, or is being deleted.
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
        """Deletes the slice; a slice that does not exist counts as deleted.

        Raises:
          UserError: gcloud failed three times. The message has the command for deleting by hand.
        """
        command = slices.delete(self.tpu)
        self.say(f"deleting slice {self.tpu.name}")
        with _uninterrupted():
            for attempt in range(_ATTEMPTS):
                try:
                    self.run(command)
                    return
                except CommandError as error:
                    if _is_not_found(error):
                        return
                    if attempt == _ATTEMPTS - 1:
                        raise UserError(
                            f"slice {self.tpu.name} could not be deleted and may keep costing "
                            f"money ({error.reason}); run: {shlex.join(command)}"
                        ) from None
                    time.sleep(self.poll_seconds)

    def _once(self, *, again: bool) -> None:
        try:
            self._create()
        except CommandError as error:
            # A request that was granted once may be refused for a while, by capacity or quota.
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
            f"slice {self.tpu.name} already exists ({state}); choose another --name, use it with "
            "--step=install and --step=run, or delete it with --step=delete"
        )

    def _state(self) -> str:
        command = slices.describe(self.tpu, slices.state_field(self.tpu))
        for _ in range(_ATTEMPTS - 1):
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
        self.say(f"a command failed; checking whether slice {self.tpu.name} is lost")
        commands = [slices.describe_node(self.tpu)]
        if self.tpu.queued:
            commands.insert(0, slices.describe(self.tpu, slices.state_field(self.tpu)))
        for attempt in range(_ATTEMPTS):
            if attempt:
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
            # The earlier failure is the one to raise; this one must still be reported.
            self.say(f"error: {error}")


def _is_not_found(error: CommandError) -> bool:
    return "NOT_FOUND" in error.reason or "not found" in error.reason


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignores signals, so that a second Ctrl-C does not stop the deletion; gcloud inherits this."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.signal(number, signal.SIG_IGN) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, handler)
