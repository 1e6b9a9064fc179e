"""The effect of a Cloud TPU slice's commands on its workers, and the image per generation."""

import shutil
import tarfile

import pytest

from deepfm_jax.errors import UserError
from experiments.cloud_tpu import slices
from experiments.cloud_tpu.commands import CommandError, run
from experiments.cloud_tpu.session import Session
from tests.experiments.cloud_tpu.fake_gcloud import READY, SLICE, write_program

# The workers run Linux and have it; macOS, where the launcher may run, does not.
needs_setsid = pytest.mark.skipif(
    shutil.which("setsid") is None, reason="no setsid, with which a slice's workers start commands"
)


@pytest.fixture
def worker(gcloud):
    """The home folder of the single worker, to which the fake's ssh and scp lead."""
    home = gcloud.folder / "worker"
    (home / "bin").mkdir(parents=True)
    gcloud.play(READY, worker=str(home))
    # curl fetches uv, once; uv creates an environment that can only be activated.
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


@pytest.mark.parametrize("generation", slices.RUNTIME_VERSIONS)
def test_each_generation_has_its_image(generation):
    images = {"v5litepod": "v2-alpha-tpuv5-lite", "v5p": "v2-alpha-tpuv5", "v6e": "v2-alpha-tpuv6e"}
    expected = images.get(generation, "tpu-ubuntu2204-base")
    assert slices.runtime_version(f"{generation}-8") == expected


@pytest.mark.parametrize("name", ["v7-8", "v5e-8", "v6e", "v6e-0", "v6e-8x", "a100-8", ""])
def test_an_unknown_accelerator_type_is_reported(name):
    with pytest.raises(UserError, match="is not one of v2-N, v3-N, v4-N, v5litepod-N"):
        slices.runtime_version(name)


@needs_setsid
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


@needs_setsid
def test_a_command_that_runs_already_is_followed_and_not_started_twice(gcloud, worker, capfd):
    steps = Session(SLICE, "echo once >> ~/runs; sleep 2", poll_seconds=0.01)
    steps.create()
    steps.install()
    run(slices.start(SLICE, steps.command))
    steps.start_and_follow()
    assert "is running already" in capfd.readouterr().err
    assert (worker / "runs").read_text() == "once\n"
    # It has ended, so the next one is a new run.
    steps.start_and_follow()
    assert (worker / "runs").read_text() == "once\nonce\n"
