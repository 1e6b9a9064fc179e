"""Hashes of values that are the same on every machine and in every process.

The ids of encoded data depend on them, so they must never change.
"""

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, UInt64

GOLDEN_GAMMA = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd
_WORD = 8  # bytes


def mix(z: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """A bijection of 64 bits in which every bit of the input reaches all of the output.

    Source: Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators (SplitMix64).
    """
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return z ^ (z >> 31)


def hash_integers(values: Int64[np.ndarray, "rows"]) -> UInt64[np.ndarray, "rows"]:
    """mix(gamma + value), in unsigned integers modulo 2^64."""
    return mix(values.astype(np.uint64) + GOLDEN_GAMMA)


def hash_text(texts: pa.StringArray) -> UInt64[np.ndarray, "rows"]:
    """A hash of the UTF-8 bytes of each text; the hash of a null is undefined.

    The hash starts at h = number of bytes and absorbs words of 8 bytes, the last one padded with
    zeros: h <- mix(h + gamma + word), words little-endian, modulo 2^64.
    """
    rows = len(texts)
    if rows == 0:
        return np.zeros(0, np.uint64)
    _, offset_buffer, data = texts.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32, rows + 1, offset=4 * texts.offset)
    starts, lengths = offsets[:-1].astype(np.int64), np.diff(offsets)
    hashed = lengths.astype(np.uint64)
    # Every word is read whole, and bytes beyond the end of its text are masked.
    content = b"" if data is None else data.slice(0, int(offsets[-1])).to_pybytes()
    padded = np.frombuffer(content + bytes(_WORD), np.uint8)
    words = np.lib.stride_tricks.sliding_window_view(padded, _WORD)
    active = np.flatnonzero(lengths > 0)
    position = 0
    while len(active):
        read = words[starts[active] + position].view("<u8")[:, 0]
        beyond = np.maximum(position + _WORD - lengths[active], 0).astype(np.uint64)
        read = (read << (8 * beyond)) >> (8 * beyond)
        hashed[active] = mix(hashed[active] + GOLDEN_GAMMA + read)
        position += _WORD
        active = active[lengths[active] > position]
    return hashed
