"""Extends an encoder to later rows: existing ids stay, and new values get the ids after them."""

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
    """Extends an encoder by the values of new *training* rows, in one pass.

    A value that ``old`` knows keeps its id, whether or not it occurs again. A new value that occurs
    in ``min_count`` of the new rows gets an id after the existing ones, in the order of
    ``encoder.fit``: by count descending, then by value ascending. ``max_size`` limits old and new
    values together, so a full vocabulary does not change. Counts of old values stay too: each is
    the count by which the value got its id, so reading the same rows again changes nothing. Means,
    standard deviations and quantile edges stay, because weights were trained on the buckets and
    values that they define. Hashed columns and columns of ids have nothing to extend.

    Args:
      old: The encoder to extend.
      tables: Typed rows (see ``readers.sources``).
      schema: Schema of the rows.

    Raises:
      UserError: there are no rows, or the schema differs from ``old``'s.
    """
    check_same_schema(old, schema)
    return grow(old, fit(tables, schema))


def grow(old: Encoder, fresh: Encoder) -> Encoder:
    """Extends ``old`` by an encoder of the same schema that was fitted on the new rows."""
    pairs = zip(old.coders, fresh.coders, strict=True)
    return dataclasses.replace(old, coders=tuple(_grow_coder(coder, new) for coder, new in pairs))


def check_same_schema(old: Encoder, schema: Schema) -> None:
    """Checks that an encoder has this schema.

    Raises:
      UserError: the schemas differ; the message names the first difference.
    """
    there, here = old.schema.to_dict(), schema.to_dict()
    if there == here:
        return
    for mine, other in zip(here["columns"], there["columns"], strict=False):
        for key in dict.fromkeys([*mine, *other]):
            if mine.get(key) != other.get(key):
                raise UserError(
                    f"the encoder to extend has another schema: column {other['name']!r} has "
                    f"{key}={other.get(key)!r}, but here it has {key}={mine.get(key)!r}; use the "
                    "schema and the options that the encoder was prepared with"
                )
    sizes = [len(schema["columns"]) for schema in (there, here)]
    what = f"{sizes[0]} columns instead of {sizes[1]}" if sizes[0] != sizes[1] else ""
    for part in ("text", "crosses"):
        if not what and there.get(part) != here.get(part):
            what = f"{part} is {there.get(part)} instead of {here.get(part)}"
    raise UserError(
        f"the encoder to extend has another schema: {what}; use the schema and the options that "
        "the encoder was prepared with"
    )


def check_grown(old: Encoder, new: Encoder) -> None:
    """Checks that every id of ``old`` means the same in ``new``, which may have more ids.

    Raises:
      UserError: an id means something else; the message names the first such column.
    """
    if old.schema.to_dict()["columns"] != new.schema.to_dict()["columns"]:
        check_same_schema(old, new.schema)
    if old.schema.crosses != new.schema.crosses:
        check_same_schema(old, new.schema)
    for before, after in zip(old.coders, new.coders, strict=True):
        name = before.field.name
        if before.statistics() != after.statistics():
            raise UserError(
                f"column {name!r}: the mean, standard deviation or quantile edges differ from the "
                f"older encoder's; {_REMEDY}"
            )
        if len(before.vocabulary) > len(after.vocabulary):
            raise UserError(
                f"column {name!r}: has {len(after.vocabulary)} values, fewer than the "
                f"{len(before.vocabulary)} of the older encoder; {_REMEDY}"
            )
        kept = after.vocabulary.slice(0, len(before.vocabulary))
        if not kept.equals(before.vocabulary):
            moved = pc.index(pc.equal(kept, before.vocabulary), False).as_py()
            raise UserError(
                f"column {name!r}: id {moved + before.first_id} means "
                f"{after.vocabulary[moved].as_py()!r}, but in the older encoder it means "
                f"{before.vocabulary[moved].as_py()!r}; {_REMEDY}"
            )


_REMEDY = "prepare the rows with --extend_from=FOLDER of that encoder"


def describe_growth(old: Encoder, new: Encoder) -> str:
    """Describes in one line how many values were added to which fields."""
    grown = {
        after.field.name: after.dim - before.dim
        for before, after in zip(old.coders, new.coders, strict=True)
        if after.dim > before.dim
    }
    if not grown:
        return "no new values: the ids are those of the encoder that was extended"
    counts = ", ".join(f"{name} {count:,}" for name, count in grown.items())
    return f"{sum(grown.values()):,} new values: {counts}"


def _grow_coder(old: FieldCoder, fresh: FieldCoder) -> FieldCoder:
    is_new = pc.invert(pc.is_in(fresh.vocabulary, value_set=old.vocabulary))
    values, counts = fresh.vocabulary.filter(is_new), fresh.counts.filter(is_new)
    limit = old.max_size
    if limit is not None:
        # The fresh vocabulary has up to ``limit`` values, at most len(old) of them old ones, so it
        # contains the most frequent new values that there is room for.
        room = max(limit - len(old.vocabulary), 0)
        values, counts = values.slice(0, room), counts.slice(0, room)
    return dataclasses.replace(
        old,
        vocabulary=pa.concat_arrays([old.vocabulary, values]),
        counts=pa.concat_arrays([old.counts, counts]),
    )
