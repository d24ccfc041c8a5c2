"""Decoded tiles: bounded bytes, each decoded by one thread only, and no memory used again while somebody reads it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lamella.slides.readers import tile_cache
from lamella.slides.readers.tile_cache import TileCache

SHAPE = (10, 10, 1)


def value(cache, owner, key, number=0, shape=SHAPE):
    """The one value that a tile holds; it is decoded to `number` if it is not there."""
    with cache.tile(owner, key, shape, lambda out: out.fill(number)) as tile:
        assert tile.shape == shape
        assert (tile == tile.flat[0]).all()
        return int(tile.flat[0])


def test_the_least_recently_used_go_first():
    cache, owner = TileCache(300), object()
    for key in range(3):
        value(cache, owner, key, key)
    value(cache, owner, 0)
    value(cache, owner, 3, 3)
    assert [(owner, key) in cache for key in range(4)] == [True, False, True, True]
    assert [value(cache, owner, key, 99) for key in (0, 2, 3)] == [0, 2, 3]
    assert cache.bytes == 300


def test_a_tile_larger_than_the_cache_is_handed_out_but_not_kept():
    cache, owner = TileCache(50), object()
    assert value(cache, owner, 0, 7) == 7
    assert (cache.bytes, (owner, 0) in cache) == (0, False)


def test_owners_are_kept_apart_and_dropped_alone():
    cache, one, other = TileCache(), object(), object()
    value(cache, one, "same", 1)
    value(cache, other, "same", 2)
    assert value(cache, one, "same", 9) == 1
    cache.drop(one)
    assert (one, "same") not in cache
    assert value(cache, other, "same", 9) == 2
    assert cache.bytes == 100


def test_the_memory_of_a_closed_slide_serves_the_next(monkeypatch):
    spare = []
    monkeypatch.setattr(tile_cache, "_SPARE_SLABS", spare)
    cache, owner = TileCache(), object()
    value(cache, owner, 0, 1)
    cache.drop(owner)
    assert len(spare) == 1
    assert value(TileCache(), owner, 0, 2) == 2
    assert spare == []
    small = TileCache(300)  # keeps to its own limit
    value(small, owner, 0, 3)
    small.drop(owner)
    assert spare == []


def test_memory_in_use_is_not_used_again():
    cache, owner = TileCache(200), object()
    with cache.tile(owner, 0, SHAPE, lambda out: out.fill(1)) as held:
        for key in range(1, 10):
            assert value(cache, owner, key, key + 1) == key + 1
            assert (held == 1).all()
            assert cache.bytes <= 200
    assert value(cache, owner, 0, 9) == 1  # it was in use all the time, so it was kept


def test_where_all_memory_is_in_use_tiles_are_not_kept():
    cache, owner = TileCache(100), object()
    with cache.tile(owner, 0, SHAPE, lambda out: out.fill(1)) as held:
        assert value(cache, owner, 1, 2) == 2
        assert (owner, 1) not in cache
        assert (held == 1).all()


def test_tiles_of_another_size_take_the_place_of_those_that_are_here():
    cache, owner = TileCache(300), object()
    for key in range(3):
        value(cache, owner, key, key)
    assert value(cache, owner, "large", 5, (15, 10, 1)) == 5
    assert cache.bytes <= 300
    assert value(cache, owner, "large", 9, (15, 10, 1)) == 5
    assert value(cache, owner, 0, 8) == 8


@pytest.mark.parametrize("fails", [False, True])
def test_threads_that_want_one_tile_decode_it_once_and_share_what_comes_of_it(fails):
    cache, owner, decoded, results = TileCache(), object(), [], []
    begun, all_asked = threading.Event(), threading.Event()

    def decode(out):
        decoded.append(1)
        begun.set()
        assert all_asked.wait(5)
        if fails:
            raise ValueError("damaged")
        out.fill(7)

    def ask():
        try:
            with cache.tile(owner, "tile", SHAPE, decode) as tile:
                results.append(int(tile.flat[0]))
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
    with pytest.raises(ZeroDivisionError), cache.tile(owner, 0, SHAPE, lambda out: 1 // 0):
        pass
    assert value(cache, owner, 0, 5) == 5


def test_many_threads_over_a_small_cache_never_see_another_tile():
    cache, owner = TileCache(5 * 100), object()

    def check(key):
        with cache.tile(owner, key, SHAPE, lambda out: out.fill(key)) as tile:
            return np.unique(tile).tolist() == [key]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(check, [number % 23 for number in range(4000)]))
    assert cache.bytes <= 500
