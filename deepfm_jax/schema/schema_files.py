"""Schema files for users to edit: JSON with one column per line."""

import json
import os
import pathlib

from deepfm_jax.errors import UserError, one_line
from deepfm_jax.files import write_atomically
from deepfm_jax.schema import Schema


def read_schema(path: str | os.PathLike[str]) -> Schema:
    """Reads a schema; omitted options have their defaults.

    Raises:
      UserError: the file does not exist, is not JSON, or holds an invalid schema.
    """
    path = pathlib.Path(path)
    try:
        # Some editors write a byte order mark.
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path}, {where}: not valid JSON ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid UTF-8 ({one_line(error)})") from None
    try:
        return Schema.from_dict(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def write_schema(path: str | os.PathLike[str], schema: Schema) -> None:
    """Writes a schema atomically."""
    data = schema.to_dict()
    parts = [f'  "text": {_line(data["text"])}']
    for name in ("columns", "crosses"):
        if data[name]:
            entries = ",\n".join(f"    {_line(entry)}" for entry in data[name])
            parts.append(f'  "{name}": [\n{entries}\n  ]')
    write_atomically(path, ("{\n" + ",\n".join(parts) + "\n}\n").encode())


def _line(data) -> str:
    return json.dumps(data, ensure_ascii=False)
