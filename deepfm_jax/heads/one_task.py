"""One binary task, such as clicks."""

from deepfm_jax.errors import UserError
from deepfm_jax.heads.head import Head


class OneTask(Head):
    """The model's own logit, unchanged.

    Source: Guo et al. 2017, Eq. 1 (arXiv 1703.04247) for the sigmoid; Table 2's "LogLoss".
    """

    def check_together(self):
        """Raises UserError unless there is one task."""
        if len(self.tasks) != 1:
            raise UserError(
                f"head.name='one_task' predicts one label, but data.labels has {len(self.tasks)}; "
                "use 'shared_bottom'"
            )

    def __call__(self, logit, hidden, *, train=False):
        """The logit as [B, 1]."""
        del hidden, train
        return logit[:, None]
