"""How rows stand in a text file."""

import dataclasses

from deepfm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """How rows stand in a text file.

    Attributes:
      delimiter: One character between cells.
      header: Whether the first line names the columns. Without a header, the columns of the
        schema must be those of the file, in the file's order.
      quoting: Whether ``"`` may quote a cell.
      trim: Whether spaces around a cell are no part of it. (Around numbers they never are.)
      missing: Texts that stand for a missing value, as ``NA``; an empty cell always does.

    Raises:
      UserError: a delimiter that is not one character.
    """

    delimiter: str = ","
    header: bool = True
    quoting: bool = True
    trim: bool = False
    missing: tuple[str, ...] = ()

    def __post_init__(self):
        if len(self.delimiter) != 1 or not self.delimiter.isascii():
            raise UserError(f"delimiter={self.delimiter!r} must be one (ASCII) character")
        if self.delimiter in "\r\n" or (self.quoting and self.delimiter == '"'):
            raise UserError(f"delimiter={self.delimiter!r} ends lines or quotes cells; use another")
