"""What was prepared stays in memory, up to a limit: each process keeps its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


SizedT = TypeVar("SizedT", bound=Sized)


class Kept(Generic[SizedT]):
    """The most recently used values of at most `limit_mb` megabytes together.

    A value larger than the limit is made and given out, and not kept. What another process is sent is empty.
    """

    def __init__(self, limit_mb: float) -> None:
        self.limit_bytes = int(limit_mb * 2**20)
        self._values: OrderedDict[Hashable, SizedT] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], SizedT]) -> SizedT:
        """The value of `key`, made if it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        self._values[key] = value
        self._bytes += value.nbytes
        while self._values and self._bytes > self.limit_bytes:
            _, oldest = self._values.popitem(last=False)
            self._bytes -= oldest.nbytes
        return value

    def __len__(self) -> int:
        return len(self._values)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_values": OrderedDict(), "_bytes": 0}
