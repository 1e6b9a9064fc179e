"""Every model against the numbers of ``make_models.py``: a refactoring moves none of them."""

import chex
import numpy as np
import pytest

from tests.golden.make_models import LABELS, NAMES, PATH, case, flat, loss_of


@pytest.fixture(scope="module")
def stored():
    return dict(np.load(PATH))


def carried_over(names, numbers):
    """The parameters that were stored as one row of numbers."""
    params, start = {}, 0
    for name in names:
        path, shape = name.split(" ", 1)
        shape = tuple(int(size) for size in shape.strip("[]").split(",") if size.strip())
        *folders, leaf = path.split("/")
        place = params
        for folder in folders:
            place = place.setdefault(folder, {})
        size = int(np.prod(shape, dtype=int))
        place[leaf] = numbers[start : start + size].reshape(shape)
        start += size
    assert start == len(numbers)
    return params


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_gradients_are_what_they_were(stored, name):
    model = case(name)[0]
    params = carried_over(stored[f"{name}/names"], stored[f"{name}/params"])
    ids, values = stored[f"{name}/ids"], stored[f"{name}/values"]
    (_, logits), gradient = loss_of(model, ids, values, LABELS[: len(ids)])(params)
    chex.assert_trees_all_close(logits, stored[f"{name}/logits"], rtol=1e-5, atol=2e-6)
    numbers, names = flat(gradient)
    assert names == stored[f"{name}/names"].tolist()
    chex.assert_trees_all_close(numbers, stored[f"{name}/gradient"], rtol=1e-4, atol=1e-6)
