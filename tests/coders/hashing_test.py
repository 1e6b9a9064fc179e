import hashlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax.coders.hashing import GOLDEN_GAMMA, hash_integers, hash_text

WORD = 2**64


def mixed(z):
    """SplitMix64's finaliser in Python's integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


def hashed(text):
    """The formula of ``hash_text``, a text at a time."""
    content = text.encode()
    h = len(content)
    for start in range(0, len(content), 8):
        word = int.from_bytes(content[start : start + 8], "little")
        h = mixed((h + GOLDEN_GAMMA + word) % WORD)
    return h


TEXTS = st.lists(st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=40)))


@settings(max_examples=200, deadline=None)
@given(texts=TEXTS, start=st.integers(0, 3))
def test_texts_are_hashed_by_the_formula(texts, start):
    array = pa.array(texts, pa.string()).slice(start)
    found = hash_text(array)
    assert len(found) == len(array)
    for text, value in zip(texts[start:], found.tolist(), strict=True):
        assert text is None or value == hashed(text)


@settings(max_examples=50)
@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_integers_are_hashed_by_the_formula(values):
    found = hash_integers(np.array(values, np.int64)).tolist()
    assert found == [mixed((value + GOLDEN_GAMMA) % WORD) for value in values]


def test_hashes_stay_what_they_are():
    # Data sets that were prepared rest on them.
    found = hash_text(pa.array(["", "a", "05db9164", "Ärger über alles, was lang ist"]))
    assert [f"{value:016x}" for value in found.tolist()] == [
        "0000000000000000",
        "f0eea8c8a0607d15",
        "4f507db37ec89c13",
        "7638f50abaaad976",
    ]


def test_another_process_finds_the_same():
    code = (
        "import pyarrow as pa; from deepfm_jax.coders.hashing import hash_text; "
        "print(hash_text(pa.array(['a', 'b', 'abcdefghij'])).tolist())"
    )
    found = hash_text(pa.array(["a", "b", "abcdefghij"])).tolist()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(found)


@pytest.mark.parametrize("buckets", [997, 1000, 1024])
@pytest.mark.parametrize("kind", ["counted", "hex", "integers"])
def test_values_spread_evenly_over_buckets(buckets, kind):
    rows = 40_000
    if kind == "integers":
        values = hash_integers(np.arange(rows) * 16)
    elif kind == "counted":
        values = hash_text(pa.array([f"site_{i}" for i in range(rows)]))
    else:
        values = hash_text(
            pa.array([hashlib.md5(str(i).encode()).hexdigest()[:8] for i in range(rows)])
        )
    counts = np.bincount((values % buckets).astype(np.int64), minlength=buckets)
    expected = rows / buckets
    chi_square = float(((counts - expected) ** 2).sum()) / expected
    # Of buckets - 1 degrees of freedom; 4 standard deviations either way.
    assert abs(chi_square - (buckets - 1)) < 4 * np.sqrt(2 * (buckets - 1))
