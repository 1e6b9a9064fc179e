"""What a model's scores become where it was trained on a part of the negative rows."""

import math

from jaxtyping import Float

from deepfm_jax.errors import UserError
from deepfm_jax.typing import AnyArray


def correct_logits(
    logits: Float[AnyArray, "*rows"], negative_rate: float
) -> Float[AnyArray, "*rows"]:
    """Scores of the rows as they are, from those of a model that saw a sample of the negatives.

    With p the probability in the sample and w the share of the negatives that it keeps, the odds
    p / (1 - p) are 1 / w times those of all rows, so q = p / (p + (1 - p) / w), which is

        logit(q) = logit(p) + ln w.

    It moves all scores alike, so no ranking changes. With w = 1 the logits come back untouched.

    Args:
      logits: logit(p), of any shape and float dtype.
      negative_rate: w in (0, 1].

    Raises:
      UserError: a rate out of its range.

    Source: He et al. 2014, Practical lessons from predicting clicks on ads at Facebook, sec. 6.3.
    """
    check_negative_rate(negative_rate)
    return logits if negative_rate == 1 else logits + math.log(negative_rate)


def check_negative_rate(rate: float) -> None:
    """Raises UserError unless 0 < ``rate`` <= 1."""
    if not 0 < rate <= 1:
        raise UserError(
            f"negative_rate={rate} must be above 0 and at most 1: the share of the negative "
            "training rows that each epoch keeps"
        )
