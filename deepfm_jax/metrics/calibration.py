"""Corrects the scores of a model that was trained on a sample of the negative examples."""

import math

from jaxtyping import Float

from deepfm_jax.errors import UserError
from deepfm_jax.typing import AnyArray


def correct_logits(
    logits: Float[AnyArray, "*examples"], negative_rate: float
) -> Float[AnyArray, "*examples"]:
    """Corrects the logits of a model trained on a sample of the negatives to those of all examples.

    With p the probability in the sample and w the share of the negatives that it keeps, the odds
    p / (1 - p) are 1 / w times the odds in all examples, so q = p / (p + (1 - p) / w), which is

        logit(q) = logit(p) + ln w.

    All logits move equally, so no ranking changes. With w = 1 they are returned unchanged.

    Args:
      logits: logit(p), of any shape and float dtype.
      negative_rate: w in (0, 1].

    Raises:
      UserError: ``negative_rate`` is out of range.

    Source: He et al. 2014, Practical lessons from predicting clicks on ads at Facebook, sec. 6.3.
    """
    check_negative_rate(negative_rate)
    return logits if negative_rate == 1 else logits + math.log(negative_rate)


def check_negative_rate(rate: float) -> None:
    """Raises UserError unless 0 < ``rate`` <= 1."""
    if not 0 < rate <= 1:
        raise UserError(
            f"negative_rate={rate} must be above 0 and at most 1: the share of the negative "
            "training examples that each epoch keeps"
        )
