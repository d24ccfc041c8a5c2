"""Decoded tiles: bounded bytes, each decoded by one thread only, and never one reader's tile for another's."""

import threading

import numpy as np
import pytest

from lamella.slides.readers.tile_cache import TileCache


def tile(value=0, size=100):
    return np.full(size, value, np.uint8)


def test_the_least_recently_used_go_first():
    cache, owner = TileCache(300), object()
    for key in range(3):
        cache.get(owner, key, lambda key=key: tile(key))
    cache.peek(owner, 0)
    cache.get(owner, 3, lambda: tile(3))
    assert [cache.peek(owner, key) is not None for key in range(4)] == [True, False, True, True]
    assert cache.bytes == 300


def test_a_tile_larger_than_the_cache_is_handed_out_but_not_kept():
    cache, owner = TileCache(50), object()
    assert len(cache.get(owner, 0, tile)) == 100
    assert (cache.bytes, cache.peek(owner, 0)) == (0, None)


def test_owners_are_kept_apart_and_dropped_alone():
    cache, one, other = TileCache(), object(), object()
    cache.get(one, "same", lambda: tile(1))
    cache.get(other, "same", lambda: tile(2))
    assert cache.peek(one, "same")[0] == 1
    cache.drop(one)
    assert cache.peek(one, "same") is None
    assert cache.peek(other, "same")[0] == 2
    assert cache.bytes == 100


@pytest.mark.parametrize("fails", [False, True])
def test_threads_that_want_one_tile_decode_it_once_and_share_what_comes_of_it(fails):
    cache, owner, decoded, results = TileCache(), object(), [], []
    begun, all_asked = threading.Event(), threading.Event()

    def decode():
        decoded.append(1)
        begun.set()
        assert all_asked.wait(5)
        if fails:
            raise ValueError("damaged")
        return tile(7)

    def ask():
        try:
            results.append(int(cache.get(owner, "tile", decode)[0]))
        except ValueError as error:
            results.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    threads[0].start()
    assert begun.wait(5)
    for thread in threads[1:]:
        thread.start()
    all_asked.set()
    for thread in threads:
        thread.join(5)
    if not fails:
        assert decoded == [1]
    assert results == (["damaged"] * 4 if fails else [7] * 4)


def test_after_an_error_the_tile_is_tried_again():
    cache, owner = TileCache(), object()
    with pytest.raises(ZeroDivisionError):
        cache.get(owner, 0, lambda: 1 // 0)
    assert cache.get(owner, 0, lambda: tile(5))[0] == 5
