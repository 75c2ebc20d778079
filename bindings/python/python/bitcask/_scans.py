"""Ordered reads, which stores, snapshots and transactions have in common."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Set, ValuesView
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    # What the native classes beside this one have.
    from ._bitcask import _Scans
else:
    _Scans = object

Item = tuple[bytes, bytes]
_NOTHING = object()


def _size(members: Any) -> int:
    """Returns how many members a set has. The length of a view may count expired keys."""
    return sum(1 for _ in members) if isinstance(members, _ExactSet) else len(members)


class _ExactSet(Set):
    """Compares what iteration shows. The library's sets compare lengths first, and the length of a
    store counts keys that have expired until a merge removes them.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return next(iter(self), _NOTHING) is not _NOTHING

    def __eq__(self, other: object) -> bool:
        count = self._count_if_within(other)
        return count if count is NotImplemented else count == _size(other)

    def __le__(self, other: Any) -> bool:
        count = self._count_if_within(other)
        return count if count is NotImplemented else count is not None

    def __lt__(self, other: Any) -> bool:
        count = self._count_if_within(other)
        return count if count is NotImplemented else count is not None and count < _size(other)

    def __ge__(self, other: Any) -> bool:
        if not isinstance(other, Set):
            return NotImplemented
        return all(self._has(member) for member in other)

    def __gt__(self, other: Any) -> bool:
        is_superset = self.__ge__(other)
        return is_superset and (is_superset is NotImplemented or _size(self) > _size(other))

    def _has(self, member: Any) -> bool:
        """Returns whether something is a member, also if it is of a type that no member has."""
        try:
            return member in self
        except TypeError:
            return False

    def _count_if_within(self, other: Any) -> Any:
        """Returns the number of members, or ``None`` if one of them is missing in the other set."""
        if not isinstance(other, Set):
            return NotImplemented
        count = 0
        for member in self:
            if member not in other:
                return None
            count += 1
        return count


class OrderedKeys(_ExactSet, KeysView):
    """The keys, in the order of their bytes."""

    __slots__ = ()

    def __iter__(self):
        return self._mapping.range_keys()

    def __reversed__(self):
        return self._mapping.range_keys(reverse=True)


class OrderedItems(_ExactSet, ItemsView):
    """Keys and values, in the order of the keys. Each iteration sees one moment of the store."""

    __slots__ = ()

    def __iter__(self):
        return self._mapping.range()

    def __reversed__(self):
        return self._mapping.range(reverse=True)


class OrderedValues(ValuesView):
    """The values, in the order of their keys. Each iteration and search sees one moment."""

    __slots__ = ()

    def __bool__(self):
        return bool(OrderedKeys(self._mapping))

    def __contains__(self, value):
        # Not by keys, each of which may be gone once its value is asked for.
        return any(one is value or one == value for one in self)

    def __iter__(self):
        return self._mapping._scan("values", None, None, True, False, False)

    def __reversed__(self):
        return self._mapping._scan("values", None, None, True, False, True)


class OrderedReads(_Scans):
    """Iteration in the order of the keys' bytes, from either end.

    An iterator shows the moment at which it was created, whatever is written meanwhile. In a
    transaction, it also shows the transaction's own writes, even those made after it was created
    to keys that it has not reached, and what it has read counts as read.
    """

    def __iter__(self) -> Iterator[bytes]:
        return self.range_keys()

    def __reversed__(self) -> Iterator[bytes]:
        return self.range_keys(reverse=True)

    def keys(self) -> KeysView[bytes]:
        """Returns a view of the keys."""
        return OrderedKeys(self)

    def items(self) -> ItemsView[bytes, bytes]:
        """Returns a view of keys and values."""
        return OrderedItems(self)

    def values(self) -> ValuesView[bytes]:
        """Returns a view of the values."""
        return OrderedValues(self)

    def range(
        self,
        start: Optional[bytes] = None,
        stop: Optional[bytes] = None,
        *,
        include_start: bool = True,
        include_stop: bool = False,
        reverse: bool = False,
    ) -> Iterator[Item]:
        """Iterates over the keys from ``start`` to ``stop`` and their values.

        ``None`` means no limit. ``reverse`` begins with the last key.
        """
        return self._scan("items", start, stop, include_start, include_stop, reverse)

    def range_keys(
        self,
        start: Optional[bytes] = None,
        stop: Optional[bytes] = None,
        *,
        include_start: bool = True,
        include_stop: bool = False,
        reverse: bool = False,
    ) -> Iterator[bytes]:
        """Iterates over the keys from ``start`` to ``stop``, without reading values."""
        return self._scan("keys", start, stop, include_start, include_stop, reverse)

    def prefix(self, prefix: bytes, *, reverse: bool = False) -> Iterator[Item]:
        """Iterates over all keys with a prefix and their values."""
        return self._scan_prefix("items", prefix, reverse)

    def prefix_keys(self, prefix: bytes, *, reverse: bool = False) -> Iterator[bytes]:
        """Iterates over all keys with a prefix, without reading values."""
        return self._scan_prefix("keys", prefix, reverse)

    def first(self) -> Optional[Item]:
        """Returns the lowest key and its value, or ``None``."""
        return next(self.range(), None)

    def last(self) -> Optional[Item]:
        """Returns the highest key and its value, or ``None``."""
        return next(self.range(reverse=True), None)
