"""Cloud TPU sessions against a fake gcloud that plays back states."""

import shlex
import time

import pytest

from deepfm_jax.errors import UserError
from experiments.cloud_tpu import slices
from experiments.cloud_tpu.commands import CommandError, run
from experiments.cloud_tpu.session import Session, SliceLostError
from tests.experiments.cloud_tpu.fake_gcloud import READY, SLICE


def session(tpu=SLICE, **settings):
    settings = {"poll_seconds": 0.01, "wait_seconds": 20, "say": lambda _: None, **settings}
    return Session(tpu, "train", **settings)


def test_a_session_waits_installs_runs_and_deletes(gcloud):
    states = ["WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    gcloud.play({"states": states})
    reported = []
    session(say=reported.append).session()
    # The first describe checks that the name is free.
    assert gcloud.calls() == [
        *("describe", "create", *["describe"] * 4),
        *("scp", "ssh", "ssh", "ssh", "delete"),
    ]
    assert [line.partition(": ")[2] for line in reported if line.startswith("slice")] == [
        *states[1:],
    ]


def test_a_preempted_slice_is_deleted_created_again_and_runs_again(gcloud):
    # The first is lost while it waits, the second while it runs (and at first looks healthy),
    # the third is refused by the zone.
    gcloud.play(
        {"states": ["PROVISIONING", "SUSPENDED"]},
        {"states": ["ACTIVE", "ACTIVE", "SUSPENDING"], "node": ["READY"], "ssh": [0, 0, 255]},
        {"states": ["WAITING_FOR_RESOURCES", "FAILED"]},
        {"states": ["PROVISIONING", "ACTIVE"]},
    )
    reported = []
    session(say=reported.append).session()
    assert gcloud.calls("create", "scp", "ssh", "delete") == [
        *("create", "delete"),
        *("create", "scp", "ssh", "ssh", "ssh", "delete"),
        *("create", "delete"),
        *("create", "scp", "ssh", "ssh", "ssh", "delete"),
    ]
    assert [line for line in reported if "retry" in line] == [
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
        with pytest.raises(UserError, match=r"slice ctr already exists \(ACTIVE\)"):
            step()
    assert gcloud.exists()
    assert set(gcloud.calls()) == {"describe"}


def test_somebody_elses_deletion_is_not_undone(gcloud):
    gcloud.play({"states": ["PROVISIONING", "DELETING"]}, READY)
    with pytest.raises(UserError, match="is being deleted") as error:
        session().session()
    assert not isinstance(error.value, SliceLostError)
    assert gcloud.calls("create") == ["create"]


def test_a_slice_that_cannot_be_deleted_is_reported_with_the_command(gcloud):
    gcloud.play(READY, broken={"delete": "INTERNAL: try later"})
    with pytest.raises(UserError) as error:
        session().session()
    assert "may keep costing money ((gcloud.x) INTERNAL: try later); run: " in str(error.value)
    assert str(error.value).endswith(shlex.join(slices.delete(SLICE)))
    assert gcloud.calls("delete") == ["delete"] * 3


def test_a_failure_is_not_hidden_by_a_deletion_that_fails_too(gcloud):
    gcloud.play({"states": ["ACTIVE"], "ssh": [7]}, broken={"delete": "INTERNAL: try later"})
    reported = []
    with pytest.raises(CommandError, match="status 7"):
        session(say=reported.append).session()
    assert "may keep costing money" in reported[-1]


def test_single_steps_do_one_part(gcloud):
    gcloud.play(READY)
    steps = session()
    for step in (steps.create, steps.wait, steps.install, steps.start_and_follow, steps.logs):
        step()
    assert gcloud.exists()
    steps.delete()
    steps.delete()  # It no longer exists, which is not an error.
    assert gcloud.calls() == [
        *("describe", "create", "describe", "scp", "ssh"),
        *("ssh", "ssh", "ssh", "delete", "delete"),
    ]
