"""What processes tell each other; multihost_test.py has two real ones."""

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from deepfm_jax import UserError
from deepfm_jax.distributed import hosts


@pytest.fixture
def said(monkeypatch):
    """Makes this process the second of two; what it gathers first stands for the other's."""
    rows = []

    def gather(row):
        rows.append(np.array(row))
        return np.stack([rows[0], row])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    return rows


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("length", [0, 10, 100_000])
def test_a_difference_is_found_however_late_it_comes(length):
    text = "x" * length
    hosts.check_same("configuration", text + "a")
    hosts.check_same("configuration", text + "a")
    with pytest.raises(UserError, match="the configuration of process 1 differs from that of"):
        hosts.check_same("configuration", text + "b")


def refused(message):
    def function():
        raise UserError(message)

    return function


@pytest.mark.parametrize("message", ["a column is missing: größe", "long " * 1000, ""])
def test_what_another_refuses_is_refused_here(said, message):
    with pytest.raises(UserError):
        hosts.run_on_all(refused(message))
    assert len(said) == 1
    with pytest.raises(UserError, match=f"process 0: {(message or 'refused')[:500]}"):
        hosts.run_on_all(lambda: 1)


@pytest.mark.usefixtures("said")
def test_any_other_failure_reaches_the_other_processes():
    def fails():
        raise KeyError("a column\nand its trace")

    with pytest.raises(KeyError):
        hosts.run_on_all(fails)
    with pytest.raises(UserError, match=r"process 0: KeyError: .*a column"):
        hosts.run_on_all(lambda: 1)


@pytest.mark.usefixtures("said")
def test_what_all_can_do_is_done():
    assert hosts.run_on_all(lambda: 7) == 7
    assert not hosts.is_primary()
    hosts.run_on_primary(refused("this is not the first"))


def test_rows_of_the_first_come_some_at_a_time(monkeypatch):
    rows = np.arange(14, dtype=np.float32).reshape(7, 2)
    assert hosts.from_primary(rows) is rows
    sent = []

    def broadcast(part):
        sent.append(len(part))
        return part + 100

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", broadcast)
    monkeypatch.setattr(hosts, "_SENT_ROWS", 3)
    np.testing.assert_array_equal(hosts.from_primary(rows), rows + 100)
    assert sent == [3, 3, 1]
