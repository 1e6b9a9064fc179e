"""How a process hears of another's end; multihost_test.py has two real ones."""

import jax
import pytest

from deepfm_jax import UserError
from deepfm_jax.distributed import early_end
from deepfm_jax.errors import PeerError, PreemptedError

FOLDER = "deepfm_jax/early_end"


class Store:
    """What ``jax.distributed``'s client does with keys and values."""

    def __init__(self):
        self.entries = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite
        self.entries[key] = value

    def key_value_dir_get(self, folder):
        return [each for each in self.entries.items() if each[0].startswith(folder)]


@pytest.fixture
def store(monkeypatch):
    """Makes this process the first of two, which share a store."""
    store = Store()
    monkeypatch.setattr(early_end, "_client", lambda: store)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for name in ("_POLL_SECONDS", "_GRACE_SECONDS"):
        monkeypatch.setattr(early_end, name, 0.01)
    monkeypatch.setattr(early_end, "_LINGER_SECONDS", 0.2)
    monkeypatch.setattr(early_end.os, "_exit", lambda status: pytest.fail("ended by its watcher"))
    return store


def says(store, process, condition):
    store.entries[f"{FOLDER}/{process}"] = condition


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("a bad row"), "a bad row"),
        (RuntimeError("two\nlines"), "RuntimeError: two lines"),
        (KeyboardInterrupt(), "interrupted"),
        (jax.errors.JaxRuntimeError("out of memory"), "JaxRuntimeError: out of memory"),
    ],
)
def test_what_ends_a_process_is_stored_and_goes_on(store, error, message):
    with pytest.raises(type(error)), early_end.end_together():
        raise error
    assert store.entries == {f"{FOLDER}/0": f"ended {message}"}


def test_a_process_that_is_done_waits_for_the_others(store):
    says(store, 1, "done")
    with early_end.end_together():
        pass
    assert store.entries[f"{FOLDER}/0"] == "done"
    says(store, 1, "ended the disk is full")
    ending = pytest.raises(PeerError, match=r"^process 1 ended: the disk is full$")
    with ending, early_end.end_together():
        pass
    assert store.entries[f"{FOLDER}/0"] == "seen"


def test_a_lost_connection_is_put_down_to_the_process_that_ended(store):
    def loses_connection():
        says(store, 1, "ended interrupted")
        raise jax.errors.JaxRuntimeError("connection closed by peer")

    ending = pytest.raises(PeerError, match=r"^process 1 ended: interrupted$")
    with ending, early_end.end_together():
        loses_connection()
    assert store.entries[f"{FOLDER}/0"] == "seen"


def test_a_stop_that_all_agreed_on_ends_nobody_early(store):
    says(store, 1, "done")
    with pytest.raises(PreemptedError), early_end.end_together():
        raise PreemptedError("step 3 is saved")
    assert store.entries[f"{FOLDER}/0"] == "done"


@pytest.mark.parametrize("process", [0, 1])
def test_the_watcher_ends_a_process_that_is_stuck(store, capsys, process):
    ended = []
    peers = early_end._Peers(store, process, 2)

    def end(status):
        ended.append(status)

    says(store, 1 - process, "ended RuntimeError: no more rows")
    early_end._watch(peers, end)
    assert ended == [2]
    assert store.entries[f"{FOLDER}/{process}"] == "seen"
    line = f"error: process {1 - process} ended: RuntimeError: no more rows"
    assert capsys.readouterr().err.strip() == line


def test_the_watcher_leaves_an_end_that_the_main_thread_knows_of(store, capsys):
    peers = early_end._Peers(store, 1, 2)
    says(store, 0, "ended a bad row")
    peers.over.set()
    early_end._watch(peers, lambda status: pytest.fail(f"ended with {status}"))
    assert not capsys.readouterr().err


def test_a_store_that_does_not_answer_is_no_failure(store, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("UNAVAILABLE")

    monkeypatch.setattr(store, "key_value_set", fails)
    monkeypatch.setattr(store, "key_value_dir_get", fails)
    with pytest.raises(UserError, match="a bad row"), early_end.end_together():
        raise UserError("a bad row")


@pytest.mark.parametrize("alone", [True, False])
def test_one_process_or_a_jax_without_the_store_does_nothing(store, monkeypatch, alone):
    monkeypatch.setattr(jax, "process_count", lambda: 1 if alone else 2)
    monkeypatch.setattr(early_end, "_client", lambda: store if alone else None)
    with pytest.raises(KeyError), early_end.end_together():
        raise KeyError("column")
    assert not store.entries


def test_jax_has_the_store_where_it_is_looked_for(monkeypatch):
    from jax._src import distributed

    assert all(
        hasattr(jax._src.lib._jax.DistributedRuntimeClient, name) for name in early_end._METHODS
    )
    assert early_end._client() is None
    monkeypatch.setattr(distributed.global_state, "client", Store())
    assert early_end._client() is distributed.global_state.client
