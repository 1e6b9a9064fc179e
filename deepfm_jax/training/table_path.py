"""Choice of the table's path: every row moves at every step, or only the rows of the batch."""

from typing import NamedTuple

from deepfm_jax.embedding import ROW_OPTIMIZERS
from deepfm_jax.errors import UserError
from deepfm_jax.features import slot_counts, total_rows
from deepfm_jax.models import Model
from deepfm_jax.training.optimizer_settings import OptimizerSettings, RowSettings

# Up to this many table rows per row that a batch reads, moving all rows is faster than finding the
# touched ones: where the lines of ours_adam and ours_dense_adam cross in
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
      reason: Why the run takes it.
    """

    name: str
    reason: str

    @property
    def changes(self) -> str:
        """What the path changes mathematically."""
        return _CHANGES[self.name]


def table_path(settings: OptimizerSettings, model: Model, batch: int) -> TablePath:
    """Returns the path that is set or, for ``"auto"``, the faster one.

    Settings of row optimizers select the sparse path, as does a table in bfloat16. Otherwise the
    path is dense if there are at most ``DENSE_ROWS_PER_READ`` table rows per row read, or if the
    optimizer has no row form.

    Args:
      settings: Optimizer settings of the run.
      model: Model with the table.
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
                f"optimizer.{given[0]} applies only to the sparse path, but optimizer.table='dense'"
            )
        if model.table_dtype == "bfloat16":
            raise UserError(
                "model.table_dtype='bfloat16' needs optimizer.table='sparse': dense updates would "
                "be rounded to nearest, which loses most of them"
            )
    if settings.table != "auto":
        return TablePath(settings.table, "optimizer.table is set")
    if given:
        return TablePath("sparse", f"optimizer.{given[0]} is set")
    if model.table_dtype == "bfloat16":
        return TablePath("sparse", "the table is in bfloat16, which dense updates would round off")
    if settings.name not in ROW_OPTIMIZERS:
        return TablePath("dense", f"{settings.name} has no row form")
    rows = total_rows(model.features)
    reads = batch * sum(slot_counts(model.features))
    if rows <= DENSE_ROWS_PER_READ * reads:
        return TablePath("dense", f"the table has {rows:,} rows, and a batch reads {reads:,}")
    return TablePath("sparse", f"the table has {rows:,} rows, and a batch reads only {reads:,}")
