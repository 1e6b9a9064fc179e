"""An encoder for later rows: the ids that it gave stay, and new values get ids after them."""

# pyarrow.compute makes its functions when imported, out of the type checker's sight.
# pyright: reportAttributeAccessIssue=false

import dataclasses
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from deepfm_jax.coders.coder import FieldCoder
from deepfm_jax.encoding.encoder import Encoder, fit
from deepfm_jax.errors import UserError
from deepfm_jax.schema import Schema


def extend(old: Encoder, tables: Iterable[pa.Table], schema: Schema) -> Encoder:
    """The encoder grown by the values of new *training* rows, in one pass.

    A value that ``old`` knows keeps its id, seen again or not. A new one that ``min_count`` of the
    new rows have gets an id after those, in the order of ``encoder.fit``: by count descending, then
    by value ascending. ``max_size`` holds for old and new values together, and so a vocabulary that
    is full stays as it is. Counts of old values stay too: each is of the rows by which the value
    got its id, and so the same rows read again change nothing. Means, deviations and quantile edges
    stay as they were, for ids of buckets and values of numbers must mean what the weights have
    learnt; hashed values and ids as they are have nothing that could grow.

    Args:
      old: The encoder that the ids are from.
      tables: Typed rows (see ``readers.sources``).
      schema: What they are read by.

    Raises:
      UserError: no rows, or another schema than ``old``'s.
    """
    check_same_schema(old, schema)
    return grow(old, fit(tables, schema))


def grow(old: Encoder, fresh: Encoder) -> Encoder:
    """``extend`` by an encoder of the same schema that was fitted on the new rows."""
    pairs = zip(old.coders, fresh.coders, strict=True)
    return dataclasses.replace(old, coders=tuple(_grown(coder, new) for coder, new in pairs))


def check_same_schema(old: Encoder, schema: Schema) -> None:
    """Whether rows of a schema can be read by an encoder.

    Raises:
      UserError: its schema is another; the message names the first difference.
    """
    there, here = old.schema.to_dict(), schema.to_dict()
    if there == here:
        return
    for mine, other in zip(here["columns"], there["columns"], strict=False):
        for key in dict.fromkeys([*mine, *other]):
            if mine.get(key) != other.get(key):
                raise UserError(
                    f"the encoder to extend has another schema: column {other['name']!r} has "
                    f"{key}={other.get(key)!r} there, and {key}={mine.get(key)!r} here; give the "
                    "schema and the options that it was prepared with"
                )
    sizes = [len(schema["columns"]) for schema in (there, here)]
    what = f"{sizes[0]} columns there, {sizes[1]} here" if sizes[0] != sizes[1] else ""
    for part in ("text", "crosses"):
        if not what and there.get(part) != here.get(part):
            what = f"{part} is {there.get(part)} there, and {here.get(part)} here"
    raise UserError(
        f"the encoder to extend has another schema: {what}; give the schema and the options that "
        "it was prepared with"
    )


def check_grown(old: Encoder, new: Encoder) -> None:
    """Whether every id of ``old`` means the same in ``new``, which may have more.

    Raises:
      UserError: it does not; the message names the first column that differs.
    """
    if old.schema.to_dict()["columns"] != new.schema.to_dict()["columns"]:
        check_same_schema(old, new.schema)
    if old.schema.crosses != new.schema.crosses:
        check_same_schema(old, new.schema)
    for before, after in zip(old.coders, new.coders, strict=True):
        name = before.field.name
        if before.statistics() != after.statistics():
            raise UserError(
                f"column {name!r}: its mean, deviation or quantile edges are not those of the "
                f"older encoder; {_REMEDY}"
            )
        if len(before.vocabulary) > len(after.vocabulary):
            raise UserError(
                f"column {name!r}: has {len(after.vocabulary)} values, and the older encoder "
                f"{len(before.vocabulary)}; {_REMEDY}"
            )
        kept = after.vocabulary.slice(0, len(before.vocabulary))
        if not kept.equals(before.vocabulary):
            moved = pc.index(pc.equal(kept, before.vocabulary), False).as_py()
            raise UserError(
                f"column {name!r}: id {moved + before.first_id} is of "
                f"{after.vocabulary[moved].as_py()!r}, and of "
                f"{before.vocabulary[moved].as_py()!r} in the older encoder; {_REMEDY}"
            )


_REMEDY = "prepare the rows with --extend_from=FOLDER of that encoder"


def describe_growth(old: Encoder, new: Encoder) -> str:
    """A line for people: how many values came to which fields."""
    grown = {
        after.field.name: after.dim - before.dim
        for before, after in zip(old.coders, new.coders, strict=True)
        if after.dim > before.dim
    }
    if not grown:
        return "no new values: all ids are those of the encoder that was extended"
    told = ", ".join(f"{name} {count:,}" for name, count in grown.items())
    return f"{sum(grown.values()):,} new values: {told}"


def _grown(old: FieldCoder, fresh: FieldCoder) -> FieldCoder:
    is_new = pc.invert(pc.is_in(fresh.vocabulary, value_set=old.vocabulary))
    values, counts = fresh.vocabulary.filter(is_new), fresh.counts.filter(is_new)
    limit = old.max_size
    if limit is not None:
        # The fresh one is limited too, to ``limit`` values of which no more than the old are old:
        # the most frequent new ones, as many as there is room for, are in it.
        room = max(limit - len(old.vocabulary), 0)
        values, counts = values.slice(0, room), counts.slice(0, room)
    return dataclasses.replace(
        old,
        vocabulary=pa.concat_arrays([old.vocabulary, values]),
        counts=pa.concat_arrays([old.counts, counts]),
    )
