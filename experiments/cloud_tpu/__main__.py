"""Trains on a Cloud TPU slice: creates it, installs, runs, streams the logs and deletes it.

``python -m experiments.cloud_tpu --name=NAME --accelerator_type=v5litepod-4 --spot
--command='deepfm-jax train --config=RECIPE --workdir=DIR'`` runs the whole session;
``--step`` runs one part, and ``--dry_run`` prints the commands instead. Every worker of the slice
runs the command, in a copy of this tree's last commit. A preempted slice is created again, up to
``--retries`` times. The slice is deleted at the end, even after a failure or Ctrl-C.
"""

from collections.abc import Callable

from absl import flags

from deepfm_jax.errors import UserError
from experiments import launcher
from experiments.cloud_tpu import slices
from experiments.cloud_tpu.commands import run
from experiments.cloud_tpu.session import Session

_STEP = flags.DEFINE_enum(
    "step",
    "session",
    ["session", "create", "wait", "install", "run", "logs", "delete"],
    "Step to run; session runs all of them.",
)
_NAME = flags.DEFINE_string("name", None, "Name of the slice.", required=True)
_TYPE = flags.DEFINE_string(
    "accelerator_type", None, "Generation and size, such as v5litepod-4 or v6e-8."
)
_PROJECT = flags.DEFINE_string("project", None, "Project; defaults to gcloud's own.")
_ZONE = flags.DEFINE_string("zone", None, "Zone; defaults to gcloud's own.")
_SPOT = flags.DEFINE_bool("spot", False, "Request a spot slice: cheaper, may be preempted.")
_QUEUED = flags.DEFINE_bool("queued", True, "Wait in the queue for capacity; or fail at once.")
_RUNTIME = flags.DEFINE_string(
    "runtime_version", None, "Image of the workers; defaults to the generation's own."
)
_CREATE_FLAG = flags.DEFINE_multi_string(
    "create_flag", [], "Extra flag for gcloud's create, such as --network=N; may be repeated."
)
_COMMAND = flags.DEFINE_string("command", None, "Shell command to run on every worker.")
_KEEP = flags.DEFINE_bool("keep", False, "Keep the slice at the end of the session.")
_RETRIES = flags.DEFINE_integer(
    "retries", 5, "How often to create a preempted slice again.", lower_bound=0
)
_WAIT = flags.DEFINE_integer(
    "wait_seconds", 6 * 3600, "How long to wait for a slice.", lower_bound=1
)
_POLL = flags.DEFINE_float(
    "poll_seconds", 10, "First interval between polls of the state.", lower_bound=0.01
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the commands, for a shell, and do nothing.")


def main() -> None:
    """Runs the step, or prints its commands."""
    command = _COMMAND.value or ""
    if _STEP.value in ("session", "run") and not command:
        raise UserError(f"--step={_STEP.value} needs --command, such as 'deepfm-jax train'")
    runtime = _RUNTIME.value or ""
    if _STEP.value in ("session", "create"):
        if not _TYPE.value:
            raise UserError(f"--step={_STEP.value} needs --accelerator_type, such as v5litepod-8")
        runtime = runtime or slices.runtime_version(_TYPE.value)
    tpu = slices.Slice(
        name=_NAME.value,
        project=_PROJECT.value or _configured("project", "--project"),
        zone=_ZONE.value or _configured("compute/zone", "--zone"),
        accelerator_type=_TYPE.value or "",
        runtime_version=runtime,
        queued=_QUEUED.value,
        spot=_SPOT.value,
        # Longer than our own wait, so that we always give up first, and only that case can occur.
        queue_seconds=_WAIT.value + 600,
        create_flags=tuple(_CREATE_FLAG.value),
    )
    if _DRY_RUN.value:
        print(slices.script(tpu, _STEP.value, command, keep=_KEEP.value, poll_seconds=_POLL.value))
        return
    session = Session(
        tpu,
        command,
        wait_seconds=_WAIT.value,
        poll_seconds=_POLL.value,
        retries=_RETRIES.value,
        keep=_KEEP.value,
    )
    steps: dict[str, Callable[[], None]] = {
        "session": session.session,
        "create": session.create,
        "wait": session.wait,
        "install": session.install,
        "run": session.start_and_follow,
        "logs": session.logs,
        "delete": session.delete,
    }
    launcher.clean_up_on_signals()
    steps[_STEP.value]()


def _configured(key: str, flag: str) -> str:
    value = run(["gcloud", "config", "get-value", key])
    if not value:
        raise UserError(f"{flag} is not given and gcloud has none (gcloud config set {key} VALUE)")
    return value


if __name__ == "__main__":
    launcher.run(main)
