"""Ids of cross-product features: hashes of the parts' ids."""

import numpy as np
from jaxtyping import Int32

from deepfm_jax.coders.hashing import GOLDEN_GAMMA, mix


def cross_ids(parts: Int32[np.ndarray, "rows parts"], buckets: int) -> Int32[np.ndarray, "rows"]:
    """1 + hash(ids of the parts) mod ``buckets``; 0 if any part has id 0.

    Id 0 marks rare, unseen and missing values, whose combinations carry no information. (Missing
    cells with their own id are values like any other.)

    The hash starts at h = 0 and absorbs the parts in order, h <- mix(h + gamma + id), in unsigned
    integers modulo 2^64. It depends only on the ids, so it is the same on every machine and in
    every process. The ids of encoded data depend on it, so it must never change.

    Source of gamma and mix: Steele, Lea, Flood 2014, Fast splittable pseudorandom number
      generators (SplitMix64). One part gives the first output of that generator seeded with it.
    """
    hashed = np.zeros(len(parts), dtype=np.uint64)
    for ids in parts.T.astype(np.uint64):
        hashed = mix(hashed + GOLDEN_GAMMA + ids)
    crossed = (hashed % buckets).astype(np.int32) + 1
    return np.where((parts == 0).any(axis=1), np.int32(0), crossed)
