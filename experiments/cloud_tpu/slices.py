"""The ``gcloud`` commands of a Cloud TPU slice: pure functions that return lists of arguments.

A *slice* is a set of TPU chips behind one or more *workers* (virtual machines, one per host). It is
requested as a *queued resource*, which waits for capacity, or as an on-demand *node*, which is
available at once or fails. The node has the name of the slice either way, so the commands that copy
and run are the same.

The images have Python 3.10, and this project needs 3.11, so uv brings its own interpreter. The
command runs detached, with its log and its status in ``~/deepfm_jax_run``: a lost connection does
not end it, and following the log again starts at its first line.

The Cloud TPU API behind these commands ends at v6e; it does not serve TPU7x.

Source: https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources/create and its
neighbours ``describe`` and ``delete``; https://cloud.google.com/sdk/gcloud/reference/compute/tpus
for ``tpu-vm`` ``create``, ``describe``, ``ssh``, ``scp`` and ``delete``;
https://cloud.google.com/tpu/docs/runtimes (runtime versions); https://cloud.google.com/tpu/docs/v5e
(names of types); https://cloud.google.com/tpu/docs/jax-pods (JAX on every worker);
https://docs.astral.sh/uv/getting-started/installation (uv).
"""

import dataclasses
import pathlib
import re
import shlex
import tempfile

from deepfm_jax.errors import UserError

# Generation in an accelerator type, and the image for it.
RUNTIME_VERSIONS = {
    "v2": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}

# Prefixes every line with its worker; the names of the machines end in the worker's number.
_WORKER = "w=$(hostname); w=worker-${w##*-}"
_INSTALL = """\
set -e
mkdir -p deepfm_jax
tar -xzf deepfm_jax.tar.gz -C deepfm_jax
test -x ~/.local/bin/uv || curl -LsSf https://astral.sh/uv/install.sh | sh
~/.local/bin/uv venv --quiet --allow-existing --python 3.12 deepfm_jax_env
~/.local/bin/uv pip install --quiet --python deepfm_jax_env/bin/python -e './deepfm_jax[tpu]'"""
_START = """\
set -e
mkdir -p deepfm_jax_run
cd deepfm_jax
if kill -0 $(cat ../deepfm_jax_run/pid 2>/dev/null) 2>/dev/null; then
echo "a command is running already; following that one" >&2
else
rm -f ../deepfm_jax_run/status
setsid bash -c {script} > ../deepfm_jax_run/log 2>&1 < /dev/null &
echo $! > ../deepfm_jax_run/pid
fi"""
_FOLLOW = f"""\
{_WORKER}
cd ~/deepfm_jax_run && test -f pid || {{ echo "$w: nothing was run here" >&2; exit 1; }}
tail -n +1 -f --pid=$(cat pid) log | stdbuf -oL tr '\\r' '\\n' | sed -u "s/^/$w: /"
s=$(cat status 2>/dev/null || echo 1)
echo "$w: the command ended with status $s" >&2
exit $s"""


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice to request, and where.

    Attributes:
      accelerator_type: Generation and size, such as ``v5litepod-16``. Like all the following except
        ``queued``, only ``create`` needs it.
      runtime_version: Image of the workers.
      queued: Whether to request a queued resource instead of an on-demand node.
      spot: Whether to take the lower price of a slice that may be preempted at any time.
      queue_seconds: Time after which a queued resource that is not provisioned fails.
      create_flags: Extra flags for gcloud's ``create``, passed unchanged.
    """

    name: str
    project: str
    zone: str
    accelerator_type: str = ""
    runtime_version: str = ""
    queued: bool = True
    spot: bool = False
    queue_seconds: int = 0
    create_flags: tuple[str, ...] = ()


def runtime_version(accelerator_type: str) -> str:
    """The image for JAX on an accelerator type.

    Raises:
      UserError: the generation of the accelerator type is unknown.
    """
    generation, _, size = accelerator_type.rpartition("-")
    if generation not in RUNTIME_VERSIONS or not re.fullmatch("[1-9][0-9]*", size):
        known = ", ".join(f"{generation}-N" for generation in RUNTIME_VERSIONS)
        hint = f" (v5e is called v5litepod-{size})" if generation == "v5e" else ""
        raise UserError(f"accelerator type {accelerator_type!r} is not one of {known}{hint}")
    return RUNTIME_VERSIONS[generation]


def create(tpu: Slice) -> list[str]:
    """Requests the slice: a queued resource returns at once, a node when it is ready."""
    if tpu.queued:
        flags = [f"--node-id={tpu.name}", f"--runtime-version={tpu.runtime_version}"]
        if tpu.queue_seconds:
            flags.append(f"--valid-until-duration={tpu.queue_seconds}s")
    else:
        flags = [f"--version={tpu.runtime_version}"]
    if tpu.spot:
        flags.append("--spot")
    flags = [f"--accelerator-type={tpu.accelerator_type}", *flags, *tpu.create_flags]
    return _gcloud(tpu, _resource(tpu), "create", tpu.name, *flags)


def describe(tpu: Slice, field: str) -> list[str]:
    """Prints one field of the queued resource, or of the node if nothing was queued."""
    return _gcloud(tpu, _resource(tpu), "describe", tpu.name, f"--format=value({field})")


def describe_node(tpu: Slice) -> list[str]:
    """Prints the state of the node."""
    return _gcloud(tpu, "tpu-vm", "describe", tpu.name, "--format=value(state)")


def state_field(tpu: Slice) -> str:
    """The field of ``describe`` that holds the state."""
    return "state.state" if tpu.queued else "state"


def ready_state(tpu: Slice) -> str:
    """The state in which the workers can be reached."""
    return "ACTIVE" if tpu.queued else "READY"


def install(tpu: Slice) -> list[list[str]]:
    """Installs this tree's last commit and its environment, with ``jax[tpu]``, on all workers.

    It sends an archive instead of a wheel, so that ``--config=experiments/configs/...`` is a path
    on the workers too.
    """
    root = pathlib.Path(__file__).parents[2]
    archive = f"{tempfile.gettempdir()}/{tpu.name}.tar.gz"
    target = f"{tpu.name}:deepfm_jax.tar.gz"
    return [
        ["git", "-C", str(root), "archive", "--format=tar.gz", f"--output={archive}", "HEAD"],
        _gcloud(tpu, "tpu-vm", "scp", archive, target, "--worker=all"),
        on_workers(tpu, _INSTALL),
    ]


def start(tpu: Slice, command: str) -> list[str]:
    """Starts a shell command on all workers, detached, in the tree and its environment."""
    script = (
        ". ~/deepfm_jax_env/bin/activate\nexport PYTHONUNBUFFERED=1\n"
        f"(\n{command}\n)\necho $? > ~/deepfm_jax_run/status"
    )
    return on_workers(tpu, _START.format(script=shlex.quote(script)))


def follow(tpu: Slice) -> list[str]:
    """Streams the logs of all workers until their commands end; fails if one of them fails."""
    return on_workers(tpu, _FOLLOW)


def on_workers(tpu: Slice, command: str) -> list[str]:
    """Runs a shell command on all workers at once."""
    return _gcloud(tpu, "tpu-vm", "ssh", tpu.name, "--worker=all", f"--command={command}")


def delete(tpu: Slice) -> list[str]:
    """Deletes the slice; ``--force`` deletes a queued resource together with its node."""
    force = ["--force"] if tpu.queued else []
    return _gcloud(tpu, _resource(tpu), "delete", tpu.name, *force)


def script(tpu: Slice, step: str, command: str, *, keep: bool, poll_seconds: float) -> str:
    """The commands of a step, or of the whole ``session``, as lines for a shell.

    Retries are not included: a session that loses its slice runs the lines again from the first.
    """
    state = shlex.join(describe(tpu, state_field(tpu)))
    ready = f'[ "$({state})" = {ready_state(tpu)} ]'
    steps = {
        "create": [shlex.join(create(tpu))],
        "wait": [f"until {ready}; do sleep {poll_seconds:g}; done"],
        "install": [shlex.join(line) for line in install(tpu)],
        "run": [shlex.join(start(tpu, command)), shlex.join(follow(tpu))],
        "logs": [shlex.join(follow(tpu))],
        "delete": [shlex.join(delete(tpu))],
    }
    if step != "session":
        return "\n".join(steps[step])
    parts = ["create", "wait", "install", "run", *([] if keep else ["delete"])]
    return "\n".join(line for part in parts for line in steps[part])


def _resource(tpu: Slice) -> str:
    return "queued-resources" if tpu.queued else "tpu-vm"


def _gcloud(tpu: Slice, *arguments: str) -> list[str]:
    where = [f"--project={tpu.project}", f"--zone={tpu.zone}"]
    # There may be nobody to answer a prompt.
    return ["gcloud", "compute", "tpus", *arguments, *where, "--quiet"]
