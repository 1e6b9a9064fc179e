"""The launcher of Cloud TPU sessions as a user runs it, against a fake gcloud."""

import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[3]
WHERE = "--project=my-project --zone=us-west4-a --quiet"
FLAGS = ("--name=ctr", "--project=my-project", "--zone=us-west4-a")


def launcher(*flags):
    return [sys.executable, "-m", "experiments.cloud_tpu", *flags]


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
    """The single line that reports a mistake."""
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
    # As a shell reads it: words, and an until loop.
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


# The caller of the tests may ignore signals, as a script does for its background jobs.
WITH_SIGNALS = """\
import os, signal, sys
for name in ("SIGHUP", "SIGINT", "SIGTERM"):
    ignored = name == sys.argv[1]
    signal.signal(signal.Signals[name], signal.SIG_IGN if ignored else signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("sent", "ignored", "status"),
    [
        (["SIGINT"], "", 130),
        (["SIGTERM"], "", 143),
        (["SIGHUP"], "", 129),
        (["SIGHUP", "SIGTERM"], "SIGHUP", 143),
    ],
)
def test_a_signal_to_the_launcher_deletes_the_slice(gcloud, sent, ignored, status):
    gcloud.play({"states": ["ACTIVE"], "hangs": True})
    flags = ("--accelerator_type=v6e-8", "--command=train")
    command = [sys.executable, "-c", WITH_SIGNALS, ignored, *launcher(*FLAGS, *flags)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 60
        while not (gcloud.folder / "hanging").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for name in sent:
            if name != sent[0]:  # The previous signal had time to act, and did nothing.
                time.sleep(1)
                assert process.poll() is None
                assert not gcloud.calls("delete")
            process.send_signal(signal.Signals[name])
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert b"Traceback" not in errors
    assert gcloud.calls("create", "delete") == ["create", "delete"]
    assert not gcloud.exists()


def test_a_failing_command_is_reported_by_its_error_line(gcloud):
    gcloud.play(broken={"create": "RESOURCE_EXHAUSTED: Quota 'TPUV6E' exhausted."})
    flags = ("--accelerator_type=v6e-8", "--command=train", "--poll_seconds=0.01")
    assert mistake(*FLAGS, *flags) == (
        "error: gcloud compute tpus queued-resources create failed with status 1: "
        "(gcloud.x) RESOURCE_EXHAUSTED: Quota 'TPUV6E' exhausted."
    )
    assert gcloud.calls("create", "scp", "ssh") == ["create"]


def test_gcloud_that_is_missing_is_reported_with_the_way_to_install_it(tmp_path):
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
