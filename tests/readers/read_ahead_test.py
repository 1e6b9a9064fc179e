import threading

import pytest

from deepfm_jax.readers.read_ahead import read_ahead


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_the_items_keep_their_order(count):
    assert list(read_ahead(iter(range(count)))) == list(range(count))


def test_another_thread_is_ahead_by_the_depth_alone():
    threads, computed = set(), threading.Semaphore(0)

    def items():
        for item in range(20):
            threads.add(threading.get_ident())
            computed.release()
            yield item

    read = read_ahead(items(), depth=3)
    next(read)
    for _ in range(1 + 3):
        assert computed.acquire(timeout=10)
    assert not computed.acquire(timeout=0.05)
    read.close()
    assert threading.get_ident() not in threads
    assert len(threads) == 1


def test_an_error_comes_where_its_item_would_have():
    def items():
        yield 1
        yield 2
        raise ValueError("third")

    read = read_ahead(items())
    assert [next(read), next(read)] == [1, 2]
    with pytest.raises(ValueError, match="third"):
        next(read)


def test_closing_it_closes_the_items():
    closed = threading.Event()

    def items():
        try:
            yield from range(1000)
        finally:
            closed.set()

    read = read_ahead(items())
    assert next(read) == 0
    read.close()
    assert closed.is_set()
