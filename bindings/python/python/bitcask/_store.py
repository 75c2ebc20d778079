"""Stores, snapshots and transactions."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, Optional, TypeVar, Union

from . import _bitcask
from ._bitcask import Batch
from ._errors import Conflict, Error, InvalidInput
from ._scans import Item, OrderedReads

T = TypeVar("T")
_MISSING: Any = object()

# The stores that have not been closed, by their ids.
_open_stores: dict[int, weakref.ref] = {}


class Transaction(OrderedReads, _bitcask.Transaction, MutableMapping[bytes, bytes]):
    """What a function receives that runs in ``Store.transaction``.

    It reads the store as it was when the transaction began, with the transaction's own writes. It
    ends with the function. Until then, any thread and any greenlet can use it.
    """

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return self.first() is not None

    def update(self, other: Any = (), /, **named: bytes) -> None:
        """Sets several keys when the transaction commits. Takes a mapping or pairs."""
        for key, value in _pairs(other, named):
            self[key] = value

    def clear(self) -> None:
        """Deletes all keys when the transaction commits."""
        for key in list(self):
            self.delete(key)


class Snapshot(OrderedReads, _bitcask.Snapshot, Mapping[bytes, bytes]):
    """The store as it was at one moment, from ``Store.snapshot``.

    It outlives the store. Until it is closed, the disk space of what it shows is not reclaimed.
    """

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Store(OrderedReads, _bitcask.Store, MutableMapping[bytes, bytes]):
    """An open store, from ``bitcask.open``: a mapping of bytes to bytes, in order."""

    def __init__(self, path: Union[str, os.PathLike[str]], **options: Any) -> None:
        key = id(self)
        _open_stores[key] = weakref.ref(self, lambda _: _open_stores.pop(key, None))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self.closed:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            _close_quietly(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "read-only" if self.read_only else "open"
        return f"<bitcask.Store {os.fspath(self.path)!r}, {state}>"

    def snapshot(self) -> Snapshot:
        """Returns the store as it is now. Use it in a ``with`` statement."""
        return Snapshot(self)

    @contextmanager
    def batch(self, *, durable: Optional[bool] = None) -> Iterator[Batch]:
        """Collects changes in a ``with`` statement, and writes all of them at its end, or none if
        it ends with an exception.
        """
        batch = Batch()
        yield batch
        self.write(batch, durable=durable)

    def transaction(
        self,
        function: Callable[[Transaction], T],
        *,
        attempts: int = 100,
        durable: Optional[bool] = None,
    ) -> T:
        """Calls a function that reads and writes any keys, and applies all of its writes together.

        Transactions are serializable: each behaves as if it ran alone at one moment. If another
        writer has changed what the function has read, it is called again. So it should only read,
        compute and write. ``Conflict`` is raised after ``attempts`` calls. An exception of the
        function discards its writes. If the store is closed meanwhile, ``Closed`` is raised.
        """
        if attempts < 1:
            raise InvalidInput(f"the option `attempts` is {attempts}: it has to be at least 1")
        for attempt in range(attempts):
            tx = Transaction(self)
            try:
                value = function(tx)
                if tx._commit(self, durable):
                    return value
            finally:
                tx._end()
            # Leaves the field to others, for longer after each conflict.
            time.sleep(0 if attempt < 4 else min(attempt, 100) * 1e-5)
        raise Conflict(
            f"a change conflicted with other writers {attempts} times; nothing was written, try it again"
        )

    def pop(self, key: bytes, default: Any = _MISSING) -> Any:
        """Removes a key and returns its value, or the default. Atomic."""

        def take(tx: Transaction) -> Optional[bytes]:
            value = tx.get(key)
            if value is not None:
                tx.delete(key)
            return value

        value = self.transaction(take)
        if value is not None:
            return value
        if default is _MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> Item:
        """Removes the lowest key, and returns it with its value. Atomic."""

        def take(tx: Transaction) -> Optional[Item]:
            item = tx.first()
            if item is not None:
                tx.delete(item[0])
            return item

        item = self.transaction(take)
        if item is None:
            raise KeyError("the store is empty")
        return item

    def setdefault(self, key: bytes, default: bytes = b"") -> bytes:
        """Returns the value of a key, which is set to the default if it is absent. Atomic."""
        while True:
            value = self.get(key)
            if value is not None:
                return value
            if self.put_if_absent(key, default):
                return default

    def update(self, other: Any = (), /, **named: bytes) -> None:
        """Sets several keys in one batch: all or none of them. Takes a mapping or pairs."""
        batch = Batch()
        for key, value in _pairs(other, named):
            batch.put(key, value)
        self.write(batch)


def _pairs(other: Any, named: dict[str, bytes]) -> Iterable[Item]:
    """Returns the pairs that ``update`` sets."""
    if named:
        raise TypeError("keys have to be bytes, so they can't be named arguments")
    if isinstance(other, OrderedReads):
        # In one moment: a key may be gone once its value is asked for.
        return other.items()
    if hasattr(other, "keys"):
        return ((key, other[key]) for key in other.keys())
    return other


def open(
    path: Union[str, os.PathLike[str]],
    *,
    create: bool = True,
    read_only: bool = False,
    sync: Union[Literal["always", "never"], float, timedelta, None] = None,
    merge: Optional[Literal["auto", "manual"]] = None,
    compression: Optional[Literal["none", "lz4"]] = None,
    default_ttl: Union[float, timedelta, None] = None,
    verify_reads: bool = True,
    segment_size: Optional[int] = None,
    segment_entries: Optional[int] = None,
    key_size_limit: Optional[int] = None,
    value_size_limit: Optional[int] = None,
    dir_mode: Optional[int] = None,
    file_mode: Optional[int] = None,
) -> Store:
    """Opens the store in a directory, which is created if it does not exist.

    One process can have it open for writing. Others open it with ``read_only=True``, and call
    ``refresh`` to see what was written since.

    ``sync`` says when writes reach the disk: ``"always"`` before a write returns, ``"never"`` when
    the operating system likes, or at an interval in seconds, one second by default. The options of
    the same names in Rust describe the others.
    """
    return Store(
        path,
        create=create,
        read_only=read_only,
        sync=sync,
        merge=merge,
        compression=compression,
        default_ttl=default_ttl,
        verify_reads=verify_reads,
        segment_size=segment_size,
        segment_entries=segment_entries,
        key_size_limit=key_size_limit,
        value_size_limit=value_size_limit,
        dir_mode=dir_mode,
        file_mode=file_mode,
    )


def _close_quietly(store: Store) -> None:
    # At exit, and in a forked process, nobody is left to hear of it. Recovery does the rest.
    try:
        store.close()
    except Error:
        pass


@atexit.register
def _close_all() -> None:
    references = list(_open_stores.values())
    stores = [store for store in (reference() for reference in references) if store is not None]
    _close_shelves(stores)
    for store in stores:
        _close_quietly(store)


def _close_shelves(stores: list[Store]) -> None:
    """Closes the shelves of open stores. With ``writeback``, they write what they hold in memory."""
    # A module of the program may have this name too.
    shelf_class = getattr(sys.modules.get("shelve"), "Shelf", None)
    if not isinstance(shelf_class, type) or not stores:
        return
    open_ids = {id(store) for store in stores if not store.closed}
    for shelf in gc.get_objects():
        # Not `isinstance`, which would ask objects of any kind for their class.
        if issubclass(type(shelf), shelf_class) and id(vars(shelf).get("dict")) in open_ids:
            try:
                shelf.close()
            except Error:
                pass
            except Exception:
                traceback.print_exc()


for _class in (Snapshot, Store, Transaction, open):
    _class.__module__ = "bitcask"
