"""What waits of one account: the urgent before the rest, each in the order in which it came. Data only."""

from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Generic, TypeVar

T = TypeVar("T")


class Lanes(Generic[T]):
    """Two queues that read as one."""

    __slots__ = ("_plain", "_urgent")

    def __init__(self) -> None:
        self._urgent: deque[T] = deque()
        self._plain: deque[T] = deque()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._plain)

    def __iter__(self) -> Iterator[T]:
        return chain(self._urgent, self._plain)

    def put(self, item: T, *, urgent: bool = False) -> None:
        """Behind what waits already of its kind."""
        (self._urgent if urgent else self._plain).append(item)

    def first(self) -> T:
        """Who is next; IndexError when nobody waits."""
        return (self._urgent or self._plain)[0]

    def take(self) -> T:
        """Who is next, out of the queue by that."""
        return (self._urgent or self._plain).popleft()

    def remove(self, item: T) -> bool:
        """Take this one out, wherever it waits; False when it does not."""
        for lane in (self._urgent, self._plain):
            if item in lane:
                lane.remove(item)
                return True
        return False
