"""The layout of a text file."""

import dataclasses

from deepfm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """The layout of rows in a text file.

    Attributes:
      delimiter: The character between cells.
      header: Whether the first line names the columns. Without a header, the schema must declare
        the columns of the file in the file's order.
      quoting: Whether ``"`` may quote a cell.
      trim: Whether to strip the spaces around a cell. (Around numbers they are always stripped.)
      missing: Texts that mean a missing value, such as ``NA``; an empty cell is always missing.

    Raises:
      UserError: the delimiter is not one character.
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
