import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfm_jax.datasets.histories import past_items

EVENT = st.tuples(st.integers(-2, 2), st.integers(0, 5), st.integers(0, 9), st.booleans())


def arrays(events):
    users, times, items, counts = (np.array(c) for c in zip(*events, strict=True))
    return users.astype(np.int64), times.astype(np.int64), items.astype(np.int64), counts


def naive(events, most):
    """For each event, the earlier counting events of its user, one by one."""
    histories = []
    for user, time, _, _ in events:
        earlier = [e for e in events if e[0] == user and e[1] < time and e[3]]
        earlier.sort(key=lambda event: event[1])  # Stable.
        histories.append([item for _, _, item, _ in earlier][-most:])
    return histories


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=30), st.integers(1, 6))
def test_histories_are_those_of_a_loop_over_events(events, most):
    histories = past_items(*arrays(events), most)
    assert histories.lists(np.arange(len(events))).to_pylist() == naive(events, most)


@settings(max_examples=50, deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=30), st.lists(st.integers(0, 29)))
def test_a_selection_of_histories_is_the_same_in_any_order(events, chosen):
    chosen = [number % len(events) for number in chosen]
    some = past_items(*arrays(events), 3).lists(np.array(chosen, np.int64)).to_pylist()
    assert some == [naive(events, 3)[number] for number in chosen]


@settings(max_examples=50, deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=30), st.integers(0, 5))
def test_nothing_that_comes_later_changes_a_history(events, time):
    """Items and labels of events from ``time`` on do not change any history up to ``time``."""
    changed = [e if e[1] < time else (*e[:2], e[2] + 100, not e[3]) for e in events]
    ours, others = (
        past_items(*arrays(each), 4).lists(np.arange(len(events))).to_pylist()
        for each in (events, changed)
    )
    for event, mine, other in zip(events, ours, others, strict=True):
        if event[1] <= time:
            assert mine == other


def test_events_of_one_time_do_not_see_each_other():
    events = [(7, 1, 10, True), (7, 1, 11, True), (7, 2, 12, True), (8, 3, 13, True)]
    assert past_items(*arrays(events), 9).lists(np.arange(4)).to_pylist() == [[], [], [10, 11], []]


def test_no_events_have_no_histories():
    none = np.zeros(0, np.int64)
    assert past_items(none, none, none, none.astype(bool), 3).lists(none).to_pylist() == []
