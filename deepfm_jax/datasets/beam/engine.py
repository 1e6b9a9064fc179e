"""The Apache Beam runner that prepares a data set; Beam is optional, and imported when used."""

# pyright: reportMissingImports=false

import dataclasses
import importlib
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from deepfm_jax.errors import UserError, one_line

# A comma before a key ends an option; other commas, as in JSON, are part of it.
_NEXT_OPTION = re.compile(r",(?=\w+(?:=|,|$))")
# Beam's own DirectRunner first looks for a server to run on, which it downloads from GitHub, and
# falls back to this runner, which needs no server.
_IN_PROCESS = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"


@dataclasses.dataclass(frozen=True)
class BeamEngine:
    """A Beam runner and its options.

    Attributes:
      runner: ``DirectRunner`` (in this process), ``DataflowRunner``, ``FlinkRunner``,
        ``SparkRunner``, ``PortableRunner`` or the full name of a class.
      options: Each ``key=value`` or only a key.
    """

    runner: str
    options: Sequence[str] = ()

    @classmethod
    def from_flags(cls, runner: str | None, options: Sequence[str]) -> "BeamEngine | None":
        """The engine of ``--beam_runner`` and ``--beam_options``; None without a runner.

        Args:
          runner: Name of the runner.
          options: Strings of one or more options, ``key=value,key=value``.

        Raises:
          UserError: there are options but no runner, or an option is not ``key=value``.
        """
        found = [option for text in options for option in _NEXT_OPTION.split(text) if option]
        if runner is None:
            if found:
                raise UserError("--beam_options needs --beam_runner; choose a runner")
            return None
        for option in found:
            if not re.match(r"\w+(=|$)", option):
                raise UserError(f"--beam_options: {option!r} is not key=value")
            if option.startswith("runner="):
                raise UserError(f"--beam_options: {option}; name the runner with --beam_runner")
        return cls(runner, tuple(found))

    def make_runner(self) -> Any:
        """The runner of a pipeline.

        Raises:
          UserError: Beam or a part that the runner needs is not installed, or the name is unknown.
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
        # As in TFDS: Beam guesses the types of outputs, and several of our outputs have two types.
        options.view_as(TypeOptions).pipeline_type_check = False
        return options

    def pipeline(self) -> Any:
        """A pipeline to use as a context manager; it runs on exit."""
        return _beam().Pipeline(runner=self.make_runner(), options=self.make_options())


def _beam() -> ModuleType:
    try:
        return importlib.import_module("apache_beam")
    except ImportError as error:
        raise UserError(
            f"--beam_runner needs Apache Beam, which cannot be imported ({one_line(error)}); "
            "pip install 'deepfm_jax[beam]'"
        ) from None
