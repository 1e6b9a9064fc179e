"""The folder of a run: its configuration, encoder and checkpoints belong together."""

import json
import os
import pathlib
import re
from typing import Any

from deepfm_jax.data.encoder import Encoder
from deepfm_jax.errors import UserError
from deepfm_jax.files import write_json
from deepfm_jax.training.settings import Experiment

_CONFIG = "config.json"
# pathlib leaves one slash of gs://; a letter before the colon is a drive.
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/")
_SECTIONS = (
    *("data", "model", "optimizer", "seed"),
    *("pretraining", "warm_start", "pretrained_vectors"),
)


def claim(workdir: str | os.PathLike[str], experiment: Experiment, encoder: Encoder) -> None:
    """Makes ``workdir`` this experiment's, or checks that it is already.

    Raises:
      UserError: another experiment's checkpoints lie there; the message names the first key that
        differs. Or the folder is a URL.
    """
    folder = pathlib.Path(workdir)
    # As a path, it would be a folder on this machine, and the checkpoints perhaps lost with that.
    if _URL.match(os.fspath(workdir)):
        raise UserError(f"workdir {folder} is a URL; give a folder, of a mounted bucket perhaps")
    config = experiment.to_dict()
    if (folder / _CONFIG).is_file():
        # Settings that are younger than the run had their defaults.
        there = Experiment.from_mapping(_read_config(folder)).to_dict()
        difference = _first_difference(_fixed(there), _fixed(config))
        if difference:
            key, old, new = difference
            raise UserError(
                f"workdir {folder} holds a run with {key}={old!r}, and this one has "
                f"{key}={new!r}; choose another --workdir, or delete that one"
            )
        if Encoder.load(folder).fingerprint() != encoder.fingerprint():
            raise UserError(
                f"workdir {folder} holds a run on data set {experiment.data.name!r} encoded "
                "otherwise (other rows or vocabularies); choose another --workdir"
            )
    else:
        if (folder / "checkpoints").exists():
            raise UserError(
                f"workdir {folder} holds checkpoints of an unknown run ({_CONFIG} is missing); "
                "choose another --workdir"
            )
        folder.mkdir(parents=True, exist_ok=True)
        encoder.save(folder)
    # Last, so that a folder with a configuration has its encoder too.
    write_json(folder / _CONFIG, config)


def has_checkpoints(workdir: str | os.PathLike[str]) -> bool:
    """Whether a run has written a checkpoint; one that is being written has a longer name."""
    return any(path.name.isdigit() for path in pathlib.Path(workdir).glob("checkpoints/*"))


def read(workdir: str | os.PathLike[str]) -> tuple[Experiment, Encoder]:
    """The experiment and the encoder of a run.

    Raises:
      UserError: the folder holds no run.
    """
    folder = pathlib.Path(workdir)
    if not (folder / _CONFIG).is_file():
        raise UserError(
            f"workdir {folder} holds no run ({_CONFIG} is missing); train one with "
            f"python -m experiments.train --workdir={folder}"
        )
    return Experiment.from_mapping(_read_config(folder)), Encoder.load(folder)


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads((folder / _CONFIG).read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{folder / _CONFIG}: not valid JSON ({error})") from None


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    """What makes the weights.

    Loop settings (epochs, patience, ...) may change between starts, but not the batch size: it
    decides which rows an epoch under way has left, and perhaps the path of the table.
    """
    fixed = {section: config.get(section) for section in _SECTIONS}
    return {**fixed, "loop": {"batch_size": config.get("loop", {}).get("batch_size")}}


def _first_difference(old: Any, new: Any, path: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            below = f"{path}.{key}" if path else key
            found = _first_difference(old.get(key), new.get(key), below)
            if found:
                return found
        return None
    return None if old == new else (path, old, new)
