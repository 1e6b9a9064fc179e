"""Ids of cross-product features: the ids of the parts, hashed together."""

import numpy as np
from jaxtyping import Int32

from deepfm_jax.coders.hashing import GOLDEN_GAMMA, mix


def cross_ids(parts: Int32[np.ndarray, "rows parts"], buckets: int) -> Int32[np.ndarray, "rows"]:
    """1 + hash(ids of the parts) mod ``buckets``; 0 where any part has id 0.

    A value that is rare, unseen or missing has id 0, and nothing can be said of what it would stand
    together with. (A missing cell that has an id of its own is a value like any other.)

    The hash starts at h = 0 and takes in one part after the other, h <- mix(h + gamma + id), in
    unsigned integers modulo 2^64. It depends on the ids alone, so it is the same on every machine
    and in every process; ids of encoded data rest on it, and it must never change.

    Source of gamma and mix: Steele, Lea, Flood 2014, Fast splittable pseudorandom number
      generators (SplitMix64). One part gives the first output of that generator seeded with it.
    """
    hashed = np.zeros(len(parts), dtype=np.uint64)
    for ids in parts.T.astype(np.uint64):
        hashed = mix(hashed + GOLDEN_GAMMA + ids)
    crossed = (hashed % buckets).astype(np.int32) + 1
    return np.where((parts == 0).any(axis=1), np.int32(0), crossed)
