"""Whether a run moves the whole table at every step, or only the rows that a batch reads."""

from typing import NamedTuple

from deepfm_jax.embedding import ROW_OPTIMIZERS
from deepfm_jax.errors import UserError
from deepfm_jax.features import slot_counts, total_rows
from deepfm_jax.models import Model
from deepfm_jax.training.optimizer_settings import OptimizerSettings, RowSettings

# Rows of the table for each row that a batch reads, below which moving all of them is faster than
# finding out which were touched: where the lines of ours_adam and ours_dense_adam cross in
# experiments/benchmarks/train_step.py.
DENSE_ROWS_PER_READ = 1.0

_CHANGES = {
    "dense": "every row moves and decays at every step, as optax does it",
    "sparse": "a row moves and decays only at the steps that read it: moments of the others wait, "
    "and rare rows decay less",
}


class TablePath(NamedTuple):
    """The path of the table.

    Attributes:
      name: ``"dense"`` or ``"sparse"``.
      reason: Why it is that one.
    """

    name: str
    reason: str

    @property
    def changes(self) -> str:
        """What the path decides of the mathematics."""
        return _CHANGES[self.name]


def table_path(settings: OptimizerSettings, model: Model, batch: int) -> TablePath:
    """The path that is set or, for ``"auto"``, the faster one.

    Settings of single rows ask for the sparse path, as does a table in bfloat16. Otherwise
    the dense path is taken up to ``DENSE_ROWS_PER_READ`` table rows for each row read, and where
    the optimizer has no row form.

    Args:
      settings: Of the run.
      model: Whose table it is.
      batch: B.

    Raises:
      UserError: settings that contradict each other.
    """
    if model.table_dtype == "float64":
        raise UserError(
            "model.table_dtype='float64' is for models that are applied as Flax modules: runs "
            "train tables in 'float32' or 'bfloat16'"
        )
    given = [key for key in ("rows", "first_order") if getattr(settings, key) != RowSettings()]
    if settings.table == "dense":
        if given:
            raise UserError(
                f"optimizer.{given[0]} is of the sparse path, and optimizer.table='dense'"
            )
        if model.table_dtype == "bfloat16":
            raise UserError(
                "model.table_dtype='bfloat16' needs optimizer.table='sparse': dense updates would "
                "be rounded to nearest, which loses most of them"
            )
    if settings.table != "auto":
        return TablePath(settings.table, "it is set")
    if given:
        return TablePath("sparse", f"optimizer.{given[0]} is set")
    if model.table_dtype == "bfloat16":
        return TablePath("sparse", "the table is in bfloat16, which dense updates would round off")
    if settings.name not in ROW_OPTIMIZERS:
        return TablePath("dense", f"{settings.name} moves no single rows")
    rows = total_rows(model.features)
    reads = batch * sum(slot_counts(model.features))
    if rows <= DENSE_ROWS_PER_READ * reads:
        return TablePath("dense", f"the table has {rows:,} rows, and a batch reads {reads:,}")
    return TablePath("sparse", f"the table has {rows:,} rows, and a batch reads only {reads:,}")
