"""Cloud TPU sessions against a gcloud that plays back states and keeps a record of its calls."""

import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

import pytest

from deepfm_jax.errors import UserError
from experiments import cloud_tpu
from experiments.commands import CommandError, run
from experiments.tpu_session import Session, SliceLostError

ROOT = pathlib.Path(__file__).parents[2]
SLICE = cloud_tpu.Slice("ctr", "my-project", "us-west4-a", "v5litepod-16", "image", spot=True)
WHERE = "--project=my-project --zone=us-west4-a --quiet"
FLAGS = ("--name=ctr", "--project=my-project", "--zone=us-west4-a")

# A life of a slice is the states that it is seen in, the last one for ever, and the statuses of
# the ssh commands, 0 after the last.
FAKE_GCLOUD = """\
import json, os, pathlib, shutil, subprocess, sys
folder = pathlib.Path(os.environ["FAKE_GCLOUD"])
play = json.loads((folder / "play.json").read_text())
args = sys.argv[1:]
verb = "config" if args[0] == "config" else args[3]
with open(folder / "calls", "a") as calls:
    calls.write(json.dumps([verb, *args]) + "\\n")

def save():
    (folder / "play.json").write_text(json.dumps(play))

def fail(message, status=1):
    advice = "\\nSome advice.\\n" if message.startswith("ERROR") else ""
    sys.exit(sys.stderr.write(message + "\\n" + advice) and status)

if verb == "config":
    sys.stderr.write("" if play.get("config") else "(unset)\\n")
    sys.exit(print(play.get("config", "")))
if verb in play.get("broken", {}):
    fail("ERROR: (gcloud.x) " + play["broken"][verb])
if verb == "create":
    play["now"] = play["lives"].pop(0)
    sys.exit(save())
if not play.get("now"):
    fail("ERROR: (gcloud.x) NOT_FOUND: no such resource")
if verb == "delete":
    play["now"] = None
    save()
elif verb == "describe":
    if "failedData" in " ".join(args):
        sys.exit(print("no more capacity in the zone"))
    # The node of a queued resource has a state of its own.
    own = "node" if args[2] == "tpu-vm" and "node" in play["now"] else "states"
    states = play["now"][own]
    print(states.pop(0) if len(states) > 1 else states[0])
    save()
elif verb == "scp" and play.get("worker"):
    shutil.copy(args[4], pathlib.Path(play["worker"], args[5].partition(":")[2]))
elif verb == "ssh" and play.get("worker"):
    home = play["worker"]
    command = next(a for a in args if a.startswith("--command=")).partition("=")[2]
    path = home + "/bin:" + os.environ["PATH"]
    env = {**os.environ, "HOME": home, "PATH": path}
    sys.exit(subprocess.run(["bash", "-c", command], cwd=home, env=env).returncode)
elif verb == "ssh" and play["now"].get("hangs"):
    (folder / "hanging").touch()
    os.execvp("sleep", ["sleep", "60"])
elif verb == "ssh":
    statuses = play["now"].setdefault("ssh", [])
    status = statuses.pop(0) if statuses else 0
    save()
    if status:
        fail(f"worker-0: the command ended with status {status}", status)
"""

READY = {"states": ["ACTIVE"]}


class Gcloud:
    """The fake, first on PATH."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / "gcloud.py").write_text(FAKE_GCLOUD)
        # No site packages: some dozens of calls start in a second.
        line = f'exec {shlex.quote(sys.executable)} -S -E {folder}/gcloud.py "$@"'
        write_program(self.bin / "gcloud", line)

    def play(self, *lives, **rest):
        (self.folder / "play.json").write_text(json.dumps({"lives": lives, **rest}))

    def calls(self, *verbs):
        """The verbs called, in order; all of them or those named."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        called = [json.loads(line)[0] for line in lines]
        return [verb for verb in called if not verbs or verb in verbs]

    def exists(self):
        return bool(json.loads((self.folder / "play.json").read_text()).get("now"))


def write_program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def gcloud(tmp_path, monkeypatch):
    fake = Gcloud(tmp_path)
    monkeypatch.setenv("PATH", f"{fake.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_GCLOUD", str(tmp_path))
    # Tests that run at the same time must not write one archive.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return fake


def session(tpu=SLICE, **settings):
    settings = {"poll_seconds": 0.01, "wait_seconds": 20, "say": lambda _: None, **settings}
    return Session(tpu, "train", **settings)


def launcher(*flags):
    return [sys.executable, "-m", "experiments.tpu_vm", *flags]


def launch(*flags, **env):
    return subprocess.run(
        launcher(*flags),
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def mistake(*flags, **env):
    """The one line that a mistake is told in."""
    done = launch(*flags, **env)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


def test_the_dry_run_prints_a_session_from_create_to_delete(gcloud):
    flags = ("--accelerator_type=v5litepod-16", "--spot", "--wait_seconds=3600", "--dry_run")
    done = launch(*FLAGS, *flags, "--command=python -m experiments.train --workdir='a b'")
    assert done.returncode == 0, done.stderr
    assert not gcloud.calls()
    # As a shell would read it: words, and an until loop.
    words = shlex.split(done.stdout)
    archive = next(word for word in words if word.startswith("--output=")).partition("=")[2]
    tpus = "gcloud compute tpus"
    assert done.stdout.splitlines()[:4] == [
        f"{tpus} queued-resources create ctr --accelerator-type=v5litepod-16 --node-id=ctr "
        f"--runtime-version=v2-alpha-tpuv5-lite --valid-until-duration=4200s --spot {WHERE}",
        f"until [ \"$({tpus} queued-resources describe ctr '--format=value(state.state)' {WHERE})\""
        " = ACTIVE ]; do sleep 10; done",
        f"git -C {ROOT} archive --format=tar.gz --output={archive} HEAD",
        f"{tpus} tpu-vm scp {archive} ctr:deepfm_jax.tar.gz --worker=all {WHERE}",
    ]
    remote = [word.partition("=")[2] for word in words if word.startswith("--command=")]
    assert words.count("ssh") == words.count("--worker=all") - 1 == len(remote) == 3
    assert "-e './deepfm_jax[tpu]'" in remote[0]
    # Quoted for the shell that this worker starts.
    start = shlex.split(remote[1])
    assert "\npython -m experiments.train --workdir='a b'\n" in start[start.index("-c") + 1]
    assert "tail -n +1 -f" in remote[2]
    assert done.stdout.splitlines()[-1] == (f"{tpus} queued-resources delete ctr --force {WHERE}")


def test_the_dry_run_can_be_pasted_in_a_shell(gcloud):
    gcloud.play({"states": ["WAITING_FOR_RESOURCES", "ACTIVE"]})
    flags = ("--accelerator_type=v6e-8", "--poll_seconds=0.01", "--command=echo it's", "--dry_run")
    printed = launch(*FLAGS, *flags).stdout
    subprocess.run(["bash", "-e", "-c", printed], check=True)
    assert gcloud.calls() == [
        *("create", "describe", "describe"),
        *("scp", "ssh", "ssh", "ssh", "delete"),
    ]


def test_the_dry_run_of_an_on_demand_node_that_is_kept(gcloud):
    flags = ("--accelerator_type=v4-8", "--noqueued", "--keep", "--dry_run", "--command=train")
    lines = launch(*FLAGS, *flags, "--create_flag=--network=net").stdout.splitlines()
    assert lines[0] == (
        "gcloud compute tpus tpu-vm create ctr --accelerator-type=v4-8 "
        f"--version=tpu-ubuntu2204-base --network=net {WHERE}"
    )
    assert "tpu-vm describe ctr '--format=value(state)'" in lines[1]
    assert "= READY ]" in lines[1]
    assert not [line for line in lines if " delete " in line]


@pytest.mark.parametrize("generation", cloud_tpu.RUNTIME_VERSIONS)
def test_each_generation_has_its_image(generation):
    images = {"v5litepod": "v2-alpha-tpuv5-lite", "v5p": "v2-alpha-tpuv5", "v6e": "v2-alpha-tpuv6e"}
    expected = images.get(generation, "tpu-ubuntu2204-base")
    assert cloud_tpu.runtime_version(f"{generation}-8") == expected


@pytest.mark.parametrize("name", ["v7-8", "v5e-8", "v6e", "v6e-0", "v6e-8x", "a100-8", ""])
def test_an_unknown_accelerator_type_is_told(name):
    with pytest.raises(UserError, match="is not one of v2-N, v3-N, v4-N, v5litepod-N"):
        cloud_tpu.runtime_version(name)


def test_a_session_waits_installs_runs_and_deletes(gcloud):
    states = ["WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    gcloud.play({"states": states})
    told = []
    session(say=told.append).session()
    # The first describe finds that the name is free.
    assert gcloud.calls() == [
        *("describe", "create", *["describe"] * 4),
        *("scp", "ssh", "ssh", "ssh", "delete"),
    ]
    assert [line.partition(": ")[2] for line in told if line.startswith("slice")] == [
        *states[1:],
    ]


def test_a_preempted_slice_is_deleted_created_again_and_runs_again(gcloud):
    # The first is lost while it waits, the second while it runs (and still looks well at first),
    # the third is refused by the zone.
    gcloud.play(
        {"states": ["PROVISIONING", "SUSPENDED"]},
        {"states": ["ACTIVE", "ACTIVE", "SUSPENDING"], "node": ["READY"], "ssh": [0, 0, 255]},
        {"states": ["WAITING_FOR_RESOURCES", "FAILED"]},
        {"states": ["PROVISIONING", "ACTIVE"]},
    )
    told = []
    session(say=told.append).session()
    assert gcloud.calls("create", "scp", "ssh", "delete") == [
        *("create", "delete"),
        *("create", "scp", "ssh", "ssh", "ssh", "delete"),
        *("create", "delete"),
        *("create", "scp", "ssh", "ssh", "ssh", "delete"),
    ]
    assert [line for line in told if "retry" in line] == [
        "slice ctr is SUSPENDED; retry 1 of 5",
        "slice ctr is SUSPENDING; retry 2 of 5",
        "slice ctr is FAILED (no more capacity in the zone); retry 3 of 5",
    ]


def test_a_preempted_node_is_noticed_before_its_queued_resource_changes(gcloud):
    gcloud.play({"states": ["ACTIVE"], "node": ["READY", "PREEMPTED"], "ssh": [0, 255]}, READY)
    session().session()
    assert gcloud.calls("create", "delete") == ["create", "delete"] * 2


def test_retries_are_bounded_and_nothing_is_left(gcloud):
    gcloud.play(*[{"states": ["FAILED"]}] * 9)
    with pytest.raises(UserError, match=r"FAILED \(no more capacity.*given up after 2 retries"):
        session(retries=2, keep=True).session()
    assert gcloud.calls("create", "delete") == ["create", "delete"] * 3
    assert not gcloud.exists()


def test_a_command_that_fails_on_a_healthy_slice_is_not_run_again(gcloud):
    gcloud.play({"states": ["ACTIVE"], "ssh": [0, 0, 3]}, READY)
    with pytest.raises(CommandError, match="tpu-vm ssh failed with status 3") as error:
        session().session()
    assert error.value.reason == "worker-0: the command ended with status 3"
    assert gcloud.calls("create", "delete") == ["create", "delete"]
    assert not gcloud.exists()


@pytest.mark.parametrize("keep", [False, True])
def test_the_slice_is_deleted_on_ctrl_c_unless_kept(gcloud, keep):
    gcloud.play(READY)

    def interrupted(command, *, stream=False):
        if "ssh" in command:
            raise KeyboardInterrupt
        return run(command, stream=stream)

    with pytest.raises(KeyboardInterrupt):
        session(run=interrupted, keep=keep).session()
    assert gcloud.exists() == keep
    assert gcloud.calls("delete") == ([] if keep else ["delete"])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_launcher_deletes_the_slice(gcloud, number, status):
    gcloud.play({"states": ["ACTIVE"], "hangs": True})
    flags = ("--accelerator_type=v6e-8", "--command=train")
    with subprocess.Popen(
        launcher(*FLAGS, *flags), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 60
        while not (gcloud.folder / "hanging").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert b"Traceback" not in errors
    assert gcloud.calls("create", "delete") == ["create", "delete"]
    assert not gcloud.exists()


def test_a_slice_that_is_never_there_ends_the_wait_and_is_deleted(gcloud):
    gcloud.play({"states": ["WAITING_FOR_RESOURCES"]})
    started = time.monotonic()
    with pytest.raises(UserError, match=r"still WAITING_FOR_RESOURCES after 0\.5 seconds"):
        session(wait_seconds=0.5).session()
    assert time.monotonic() - started < 20
    assert gcloud.calls("create", "delete") == ["create", "delete"]


def test_looks_at_the_state_become_rarer(gcloud, monkeypatch):
    gcloud.play(now={"states": [*["PROVISIONING"] * 7, "ACTIVE"]})
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    session(poll_seconds=1).wait()
    assert waited == pytest.approx([1, 1.5, 2.25, 3.375, 5.0625, 6, 6])


def test_a_name_in_use_is_refused_and_left_alone(gcloud):
    gcloud.play(now={"states": ["ACTIVE"]})
    for step in (session().session, session().create):
        with pytest.raises(UserError, match=r"slice ctr exists already \(ACTIVE\)"):
            step()
    assert gcloud.exists()
    assert set(gcloud.calls()) == {"describe"}


def test_somebody_elses_deletion_is_not_undone(gcloud):
    gcloud.play({"states": ["PROVISIONING", "DELETING"]}, READY)
    with pytest.raises(UserError, match="is being deleted") as error:
        session().session()
    assert not isinstance(error.value, SliceLostError)
    assert gcloud.calls("create") == ["create"]


def test_a_failing_command_is_told_by_its_error_line(gcloud):
    gcloud.play(broken={"create": "RESOURCE_EXHAUSTED: Quota 'TPUV6E' exhausted."})
    flags = ("--accelerator_type=v6e-8", "--command=train", "--poll_seconds=0.01")
    assert mistake(*FLAGS, *flags) == (
        "error: gcloud compute tpus queued-resources create failed with status 1: "
        "(gcloud.x) RESOURCE_EXHAUSTED: Quota 'TPUV6E' exhausted."
    )
    assert gcloud.calls("create", "scp", "ssh") == ["create"]


def test_a_slice_that_cannot_be_deleted_is_told_with_the_command(gcloud):
    gcloud.play(READY, broken={"delete": "INTERNAL: try later"})
    with pytest.raises(UserError) as error:
        session().session()
    assert "may go on costing money ((gcloud.x) INTERNAL: try later); run: " in str(error.value)
    assert str(error.value).endswith(shlex.join(cloud_tpu.delete(SLICE)))
    assert gcloud.calls("delete") == ["delete"] * 3


def test_a_failure_is_not_hidden_by_a_deletion_that_fails_too(gcloud):
    gcloud.play({"states": ["ACTIVE"], "ssh": [7]}, broken={"delete": "INTERNAL: try later"})
    told = []
    with pytest.raises(CommandError, match="status 7"):
        session(say=told.append).session()
    assert "may go on costing money" in told[-1]


def test_gcloud_that_is_missing_is_told_with_the_way_to_install_it(tmp_path):
    flags = ("--accelerator_type=v6e-8", "--command=train")
    message = mistake(*FLAGS, *flags, PATH=str(tmp_path))
    assert message == (
        "error: gcloud is not installed; see https://cloud.google.com/sdk/docs/install"
    )


def test_project_and_zone_are_gclouds_own_or_asked_for(gcloud):
    flags = ("--name=ctr", "--step=delete", "--dry_run")
    gcloud.play(config="own")
    assert "--project=own --zone=own" in launch(*flags).stdout
    gcloud.play()
    assert mistake(*flags).startswith("error: --project is not given and gcloud has none")
    message = mistake(*flags, "--project=p")
    assert "--zone is not given" in message
    assert "gcloud config set compute/zone" in message


def test_flags_that_are_missing_are_named():
    assert "--name" in mistake("--command=train")
    assert "--step=run needs --command" in mistake(*FLAGS, "--step=run")
    assert "needs --accelerator_type" in mistake(*FLAGS, "--command=train")
    message = mistake(*FLAGS, "--command=train", "--accelerator_type=v5e-8")
    assert "'v5e-8' is not one of" in message
    assert "v5litepod-8" in message


def test_single_steps_do_one_part(gcloud):
    gcloud.play(READY)
    steps = session()
    for step in (steps.create, steps.wait, steps.install, steps.start_and_follow, steps.logs):
        step()
    assert gcloud.exists()
    steps.delete()
    steps.delete()  # There is none any more, and that is as it should be.
    assert gcloud.calls() == [
        *("describe", "create", "describe", "scp", "ssh"),
        *("ssh", "ssh", "ssh", "delete", "delete"),
    ]


@pytest.fixture
def worker(gcloud):
    """A folder that is the home of the one worker, with the fake's ssh and scp leading there."""
    home = gcloud.folder / "worker"
    (home / "bin").mkdir(parents=True)
    gcloud.play(READY, worker=str(home))
    # uv is fetched by curl, once, and makes an environment that only can be activated.
    uv = home / "uv"
    write_program(
        uv,
        'echo "uv $*" >> ~/uv_calls\n'
        "[ $1 = venv ] && mkdir -p deepfm_jax_env/bin && "
        'echo "export TPU_ENV=yes" > deepfm_jax_env/bin/activate; true',
    )
    install = f"mkdir -p ~/.local/bin; cp {uv} ~/.local/bin/uv; echo fetched >> ~/uv_calls"
    write_program(home / "bin" / "curl", f"echo '{install}'")
    write_program(home / "bin" / "hostname", "echo t1v-n-1a2b3c4d-w-3")
    return home


@pytest.mark.skipif(shutil.which("setsid") is None, reason="the workers run Linux")
def test_the_commands_for_the_workers_do_what_they_say(gcloud, worker, capfd):
    steps = Session(
        SLICE,
        "echo \"$TPU_ENV in $(basename $PWD): it's 5\"; printf '10%%\\r20%%\\r'; sleep 1; exit 4",
        poll_seconds=0.01,
    )
    steps.create()
    steps.install()
    with tarfile.open(worker / "deepfm_jax.tar.gz") as archive:
        assert "experiments/configs/demo.py" in archive.getnames()
    assert (worker / "deepfm_jax" / "pyproject.toml").exists()
    steps.install()
    calls = (worker / "uv_calls").read_text().splitlines()
    assert calls.count("fetched") == 1
    assert calls[-1].endswith("--python deepfm_jax_env/bin/python -e ./deepfm_jax[tpu]")

    with pytest.raises(CommandError) as error:
        steps.logs()
    assert error.value.reason == "worker-3: nothing was run here"
    capfd.readouterr()
    for step in (steps.start_and_follow, steps.logs):
        with pytest.raises(CommandError) as error:
            step()
        assert error.value.reason == "worker-3: the command ended with status 4"
        assert capfd.readouterr().out.splitlines() == [
            "worker-3: yes in deepfm_jax: it's 5",
            "worker-3: 10%",
            "worker-3: 20%",
        ]


@pytest.mark.skipif(shutil.which("setsid") is None, reason="the workers run Linux")
def test_a_command_that_runs_already_is_followed_and_not_started_twice(gcloud, worker, capfd):
    steps = Session(SLICE, "echo once >> ~/runs; sleep 2", poll_seconds=0.01)
    steps.create()
    steps.install()
    run(cloud_tpu.start(SLICE, steps.command))
    steps.start_and_follow()
    assert "is running already" in capfd.readouterr().err
    assert (worker / "runs").read_text() == "once\n"
    # It has ended now, so that the next one is a new run.
    steps.start_and_follow()
    assert (worker / "runs").read_text() == "once\nonce\n"
