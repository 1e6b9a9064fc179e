"""The command ``deepfm-jax``, started by ``python -m experiments`` in a clone, and its wheel."""

import ast
import pathlib
import subprocess
import sys
import tomllib

import pytest

from experiments import __main__ as command

ROOT = pathlib.Path(__file__).parents[2]
SHIPPED = [*(ROOT / "experiments").glob("*.py"), *(ROOT / "experiments/configs").glob("*.py")]


def run(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "experiments", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["deepfm-jax", *arguments])
    command.main()


def test_help_has_a_line_for_each_verb(monkeypatch, capsys):
    call(monkeypatch, "--help")
    lines = capsys.readouterr().out.splitlines()
    for verb in command.VERBS:
        assert [line for line in lines if line.startswith(f"  {verb} ")], verb
        assert (ROOT / f"experiments/{verb}.py").is_file()


@pytest.mark.parametrize("arguments", [(), ("trian",), ("--workdir=x", "train")])
def test_an_unknown_verb_is_one_line(arguments, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, *arguments)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].endswith("use one of prepare, train, evaluate, predict, compare, recipes")


def test_a_verb_has_its_own_help_and_flags():
    done = run("predict", "--help")
    assert "Scores raw rows: ``deepfm-jax predict" in done.stdout
    assert "--max_bad_rows" in done.stdout
    # The message names the missing key, so the recipe was found by its name.
    done = run("train", "--config=frappe:fm", "--config.model.mlp_dims=(4,)")
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert "mlp_dims" in done.stderr


def test_the_wheel_has_every_package_and_no_top_level_experiments(monkeypatch):
    """The arguments of ``setup.py``, from which setuptools lists the files."""
    setuptools = pytest.importorskip("setuptools")
    given = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    exec(compile((ROOT / "setup.py").read_text(), "setup.py", "exec"), {})
    rooms = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "deepfm_jax").rglob("*.py")
    }
    experiments = {"deepfm_jax.experiments", "deepfm_jax.experiments.configs"}
    assert set(given["packages"]) == rooms | experiments
    assert given["package_dir"] == {"deepfm_jax.experiments": "experiments"}
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"deepfm-jax": "deepfm_jax.experiments.__main__:main"}


def test_what_the_wheel_has_of_experiments_imports_its_neighbours_relatively():
    for path in SHIPPED:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or alias.name for alias in node.names]
            else:
                continue
            for name in names:
                assert name.split(".")[0] not in ("experiments", "benchmarks", "cloud_tpu"), path
