"""The folder of a run, which keeps its configuration, encoder and checkpoints together."""

import json
import os
import pathlib
import re
from typing import Any

from deepfm_jax.encoding.encoder import Encoder
from deepfm_jax.errors import UserError
from deepfm_jax.files import write_json
from deepfm_jax.training.settings import Experiment

_CONFIG = "config.json"
# pathlib keeps one slash of gs://; a single letter before the colon is a drive.
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/")
_SECTIONS = (
    *("data", "model", "head", "optimizer", "seed"),
    *("pretraining", "warm_start", "pretrained_vectors"),
)
# Settings of the loop that may not change during a run. The batch size determines which examples
# the current epoch has left, and perhaps the path of the table; the best score so far is a value of
# the monitored metric, and cannot be compared with another metric.
_FIXED_LOOP_KEYS = ("batch_size", "monitor")
# Settings that affect neither the weights nor the choice of the best ones.
_FREE_LOOP_KEYS = ("checkpoint_steps", "log_steps", "eval_batch_size")


def claim(workdir: str | os.PathLike[str], experiment: Experiment, encoder: Encoder) -> None:
    """Claims ``workdir`` for this experiment, or checks that it is its own already.

    Raises:
      UserError: see ``check``.
    """
    check(workdir, experiment, encoder)
    folder = pathlib.Path(workdir)
    if not has_config(folder):
        folder.mkdir(parents=True, exist_ok=True)
        encoder.save(folder)
    # The configuration comes last, so that a folder that has one also has its encoder.
    write_json(folder / _CONFIG, experiment.to_dict())


def check(
    workdir: str | os.PathLike[str],
    experiment: Experiment,
    encoder: Encoder,
    *,
    same_loop: bool = False,
) -> None:
    """Checks that ``workdir`` is free for this experiment, or its own already; writes nothing.

    Args:
      workdir: Folder of a run, which need not exist.
      experiment: Experiment to run there.
      encoder: Encoder of its data set.
      same_loop: Whether a run in the folder must also have the same epochs, patience and so on,
        which may otherwise change between the starts of a run.

    Raises:
      UserError: the folder holds another experiment's checkpoints (the message names the first key
        that differs), or it is a URL.
    """
    folder = pathlib.Path(workdir)
    # As a path, a URL would be a folder on this machine, with which the checkpoints might be lost.
    if _URL.match(os.fspath(workdir)):
        raise UserError(
            f"workdir {folder} is a URL; give a folder, for example one of a mounted bucket"
        )
    if not has_config(folder):
        if (folder / "checkpoints").exists():
            raise UserError(
                f"workdir {folder} holds checkpoints of an unknown run ({_CONFIG} is missing); "
                "choose another --workdir"
            )
        return
    # Settings that were added after the run get their defaults.
    there = read_experiment(folder).to_dict()
    config = experiment.to_dict()
    difference = _first_difference(_fixed(there), _fixed(config))
    if difference:
        raise UserError(
            f"{_describe(folder, difference)}; choose another --workdir, or delete that one"
        )
    difference = _first_difference(_loop_of_result(there), _loop_of_result(config))
    if same_loop and difference:
        key, old, _ = difference
        raise UserError(
            f"{_describe(folder, difference)}; choose another --workdir, or set {key}={old!r}"
        )
    if Encoder.load(folder).fingerprint() != encoder.fingerprint():
        raise UserError(
            f"workdir {folder} holds a run on data set {experiment.data.name!r} encoded "
            "differently (other rows or vocabularies); choose another --workdir"
        )


def has_checkpoints(workdir: str | os.PathLike[str]) -> bool:
    """Whether a run has written a checkpoint; unfinished checkpoints have longer names."""
    return any(path.name.isdigit() for path in pathlib.Path(workdir).glob("checkpoints/*"))


def has_config(workdir: str | os.PathLike[str]) -> bool:
    """Whether a run has begun in a folder."""
    return (pathlib.Path(workdir) / _CONFIG).is_file()


def read_experiment(workdir: str | os.PathLike[str]) -> Experiment:
    """Reads the experiment of a run that has begun.

    Raises:
      UserError: its configuration is not valid JSON, or does not fit this version.
    """
    return Experiment.from_mapping(_read_config(pathlib.Path(workdir)))


def read(workdir: str | os.PathLike[str]) -> tuple[Experiment, Encoder]:
    """Reads the experiment and the encoder of a run.

    Raises:
      UserError: the folder holds no run.
    """
    folder = pathlib.Path(workdir)
    if not has_config(folder):
        raise UserError(
            f"workdir {folder} holds no run ({_CONFIG} is missing); train one with "
            f"deepfm-jax train --workdir={folder}"
        )
    return read_experiment(folder), Encoder.load(folder)


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads((folder / _CONFIG).read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{folder / _CONFIG}: not valid JSON ({error})") from None


def _describe(folder: pathlib.Path, difference: tuple[str, Any, Any]) -> str:
    key, old, new = difference
    return f"workdir {folder} holds a run with {key}={old!r}, but this one has {key}={new!r}"


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    """Settings that may not change between starts; most of the loop (epochs, patience) may."""
    fixed = {section: config[section] for section in _SECTIONS}
    # The data may have moved; the fingerprint shows whether they are the same.
    fixed["data"] = {key: value for key, value in config["data"].items() if key != "folder"}
    return {**fixed, "loop": {key: config["loop"][key] for key in _FIXED_LOOP_KEYS}}


def _loop_of_result(config: dict[str, Any]) -> dict[str, Any]:
    """Loop settings that determine how long a run trains and which weights are kept."""
    kept = {key: value for key, value in config["loop"].items() if key not in _FREE_LOOP_KEYS}
    return {"loop": kept}


def _first_difference(old: Any, new: Any, path: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            below = f"{path}.{key}" if path else key
            found = _first_difference(old.get(key), new.get(key), below)
            if found:
                return found
        return None
    return None if old == new else (path, old, new)
