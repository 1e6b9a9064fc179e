"""Which Apache Beam runner prepares a data set. Beam is an extra, imported when it is used."""

# pyright: reportMissingImports=false

import dataclasses
import importlib
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from deepfm_jax.errors import UserError, one_line

# A comma before a letter and an equals sign ends an option; others, as in JSON, are part of it.
_NEXT_OPTION = re.compile(r",(?=\w+(?:=|,|$))")
# Beam's own DirectRunner first looks for a server to run on, which it downloads from GitHub, and
# then takes this one, which needs nothing.
_IN_PROCESS = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"


@dataclasses.dataclass(frozen=True)
class BeamEngine:
    """A runner and its options, as Beam knows them.

    Attributes:
      runner: ``DirectRunner`` (in this process), ``DataflowRunner``, ``FlinkRunner``,
        ``SparkRunner``, ``PortableRunner`` or the full name of a class.
      options: ``key=value``, or a key alone.
    """

    runner: str
    options: Sequence[str] = ()

    @classmethod
    def from_flags(cls, runner: str | None, options: Sequence[str]) -> "BeamEngine | None":
        """The engine of ``--beam_runner`` and ``--beam_options``; None without a runner.

        Args:
          runner: Its name.
          options: Texts of one option or more, ``key=value,key=value``.

        Raises:
          UserError: options without a runner, or one that is not ``key=value``.
        """
        found = [option for text in options for option in _NEXT_OPTION.split(text) if option]
        if runner is None:
            if found:
                raise UserError("--beam_options goes with --beam_runner; which runner?")
            return None
        for option in found:
            if not re.match(r"\w+(=|$)", option):
                raise UserError(f"--beam_options: {option!r} is not key=value")
            if option.startswith("runner="):
                raise UserError(f"--beam_options: {option}; name the runner by --beam_runner")
        return cls(runner, tuple(found))

    def make_runner(self) -> Any:
        """The runner of a pipeline.

        Raises:
          UserError: Beam, or what the runner needs of it, is not installed, or the name is unknown.
        """
        _beam()
        from apache_beam.runners.runner import create_runner

        name = _IN_PROCESS if self.runner.lower() in ("direct", "directrunner") else self.runner
        try:
            return create_runner(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(f"--beam_runner={self.runner}: {one_line(error)}") from None

    def make_options(self) -> Any:
        """The ``PipelineOptions`` of a pipeline."""
        _beam()
        from apache_beam.options.pipeline_options import PipelineOptions, TypeOptions

        options = PipelineOptions([f"--{option}" for option in self.options])
        # As TFDS has it, for Beam guesses the types of outputs, and several of ours have two.
        options.view_as(TypeOptions).pipeline_type_check = False
        return options

    def pipeline(self) -> Any:
        """A pipeline to be entered; it has run when it is left."""
        return _beam().Pipeline(runner=self.make_runner(), options=self.make_options())


def _beam() -> ModuleType:
    try:
        return importlib.import_module("apache_beam")
    except ImportError as error:
        raise UserError(
            f"--beam_runner needs Apache Beam, which cannot be imported ({one_line(error)}); "
            "pip install 'deepfm_jax[beam]'"
        ) from None
