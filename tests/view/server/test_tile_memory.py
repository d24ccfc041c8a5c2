"""Sent tiles are kept within a limit, the ones asked for last."""

from concurrent.futures import ThreadPoolExecutor

from lamella.view.server.tile_memory import TileMemory


def test_the_least_recently_asked_for_are_forgotten():
    memory = TileMemory(max_bytes=30)
    for key in "abc":
        memory.put(key, bytes(10))
    assert memory.get("a") == bytes(10)
    memory.put("d", bytes(10))
    assert [memory.get(key) is None for key in "abcd"] == [False, True, False, False]
    assert memory.bytes == 30


def test_a_tile_that_is_put_again_counts_once_and_one_beyond_the_limit_is_not_kept():
    memory = TileMemory(max_bytes=30)
    memory.put("a", bytes(10))
    memory.put("a", bytes(20))
    assert memory.bytes == 20
    memory.put("b", bytes(40))
    assert (memory.get("b"), memory.bytes) == (None, 0)


def test_many_threads_keep_within_the_limit():
    memory = TileMemory(max_bytes=1000)

    def work(number):
        for step in range(300):
            memory.put((number, step % 40), bytes(step % 90))
            memory.get((number + 1, step % 40))
            assert memory.bytes <= 1000 + 4 * 90

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert memory.bytes == sum(len(tile) for tile in memory._tiles.values()) <= 1000
