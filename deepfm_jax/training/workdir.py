"""The folder of a run: its configuration, encoder and checkpoints belong together."""

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
# pathlib leaves one slash of gs://; a letter before the colon is a drive.
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/")
_SECTIONS = (
    *("data", "model", "head", "optimizer", "seed"),
    *("pretraining", "warm_start", "pretrained_vectors"),
)
# Settings of the loop that may not change under a run. The batch size decides which rows an epoch
# under way has left, and perhaps the path of the table; the best score so far is one of the
# monitored metric, and a score of another is no better or worse than it.
_FIXED_OF_LOOP = ("batch_size", "monitor")
# Those that decide neither the weights nor which of them are the best.
_FREE_OF_LOOP = ("checkpoint_steps", "log_steps", "eval_batch_size")


def claim(workdir: str | os.PathLike[str], experiment: Experiment, encoder: Encoder) -> None:
    """Makes ``workdir`` this experiment's, or checks that it is already.

    Raises:
      UserError: see ``check``.
    """
    check(workdir, experiment, encoder)
    folder = pathlib.Path(workdir)
    if not has_config(folder):
        folder.mkdir(parents=True, exist_ok=True)
        encoder.save(folder)
    # Last, so that a folder with a configuration has its encoder too.
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
      workdir: Folder of a run, which need not be there.
      experiment: What is to run there.
      encoder: Of its data.
      same_loop: Whether a run there must also have had the same epochs, patience and so on, which
        otherwise may change between the starts of a run.

    Raises:
      UserError: another experiment's checkpoints lie there; the message names the first key that
        differs. Or the folder is a URL.
    """
    folder = pathlib.Path(workdir)
    # As a path, it would be a folder on this machine, and the checkpoints perhaps lost with that.
    if _URL.match(os.fspath(workdir)):
        raise UserError(f"workdir {folder} is a URL; give a folder, of a mounted bucket perhaps")
    if not has_config(folder):
        if (folder / "checkpoints").exists():
            raise UserError(
                f"workdir {folder} holds checkpoints of an unknown run ({_CONFIG} is missing); "
                "choose another --workdir"
            )
        return
    # Settings that are younger than the run had their defaults.
    there = read_experiment(folder).to_dict()
    config = experiment.to_dict()
    difference = _first_difference(_fixed(there), _fixed(config))
    if difference:
        raise UserError(
            f"{_told(folder, difference)}; choose another --workdir, or delete that one"
        )
    difference = _first_difference(_bound(there), _bound(config))
    if same_loop and difference:
        key, old, _ = difference
        raise UserError(
            f"{_told(folder, difference)}; choose another --workdir, or set {key}={old!r}"
        )
    if Encoder.load(folder).fingerprint() != encoder.fingerprint():
        raise UserError(
            f"workdir {folder} holds a run on data set {experiment.data.name!r} encoded "
            "otherwise (other rows or vocabularies); choose another --workdir"
        )


def has_checkpoints(workdir: str | os.PathLike[str]) -> bool:
    """Whether a run has written a checkpoint; one that is being written has a longer name."""
    return any(path.name.isdigit() for path in pathlib.Path(workdir).glob("checkpoints/*"))


def has_config(workdir: str | os.PathLike[str]) -> bool:
    """Whether a run has begun in a folder."""
    return (pathlib.Path(workdir) / _CONFIG).is_file()


def read_experiment(workdir: str | os.PathLike[str]) -> Experiment:
    """The experiment of a run that has begun.

    Raises:
      UserError: its configuration is no JSON, or not one of this version.
    """
    return Experiment.from_mapping(_read_config(pathlib.Path(workdir)))


def read(workdir: str | os.PathLike[str]) -> tuple[Experiment, Encoder]:
    """The experiment and the encoder of a run.

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


def _told(folder: pathlib.Path, difference: tuple[str, Any, Any]) -> str:
    key, old, new = difference
    return f"workdir {folder} holds a run with {key}={old!r}, and this one has {key}={new!r}"


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    """What makes the weights; the rest of the loop (epochs, patience) may change between starts."""
    fixed = {section: config[section] for section in _SECTIONS}
    # The data may have moved; their fingerprint says whether they are the same.
    fixed["data"] = {key: value for key, value in config["data"].items() if key != "folder"}
    return {**fixed, "loop": {key: config["loop"][key] for key in _FIXED_OF_LOOP}}


def _bound(config: dict[str, Any]) -> dict[str, Any]:
    """What in the loop decides how long a run trains and which weights are kept."""
    kept = {key: value for key, value in config["loop"].items() if key not in _FREE_OF_LOOP}
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
