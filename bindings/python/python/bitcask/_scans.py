"""Ordered reads, which stores, snapshots and transactions have in common."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    # What the native classes beside this one have.
    from ._bitcask import _Scans
else:
    _Scans = object

Item = tuple[bytes, bytes]


class OrderedKeys(KeysView):
    """The keys, in the order of their bytes."""

    __slots__ = ()

    def __iter__(self):
        return self._mapping.range_keys()

    def __reversed__(self):
        return self._mapping.range_keys(reverse=True)


class OrderedItems(ItemsView):
    """Keys and values, in the order of the keys. Each iteration sees one moment of the store."""

    __slots__ = ()

    def __iter__(self):
        return self._mapping.range()

    def __reversed__(self):
        return self._mapping.range(reverse=True)


class OrderedValues(ValuesView):
    """The values, in the order of their keys."""

    __slots__ = ()

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
