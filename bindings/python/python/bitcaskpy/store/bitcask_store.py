"""The store of bitcaskpy: text under text."""

from __future__ import annotations

import os
import weakref
from typing import Any, Optional, Union

from bitcask import Error, Store
from bitcask._moved import Lease, text_key, within

from ..config.defaults import DEFAULT_MAX_SEGMENT_ENTRIES, DEFAULT_MAX_SEGMENT_SIZE

# What a segment of bitcask can be.
_SEGMENT_SIZES = (512, 512 << 20)
# What bitcaskpy's documentation gives as defaults of `open_store`.
_FSYNC_INTERVAL, _MAX_ENTRIES = 5.0, 1000
# The shortest interval of the store.
_INTERVAL_MIN = 1e-3

# The stores that `open_store` has returned, as far as they still exist.
_opened: weakref.WeakSet[BitcaskStore] = weakref.WeakSet()

Path = Union[str, "os.PathLike[str]"]


class BitcaskStore:
    """A store of text under text. Threads may share it.

    ``sync`` is that of ``bitcask.open``, or a flag: ``True`` means ``"always"``.

    Objects of one process that open the same directory share one store; the options of the first
    one count, except that the writes of an object with ``sync="always"`` are durable in any case.
    """

    def __init__(
        self,
        base_directory: Path,
        *,
        sync: Union[str, float, bool, None] = None,
        max_segment_size: int = DEFAULT_MAX_SEGMENT_SIZE,
        max_entries_per_segment: int = DEFAULT_MAX_SEGMENT_ENTRIES,
        max_key_size: Optional[int] = None,
        max_value_size: Optional[int] = None,
    ) -> None:
        self.base_directory = base_directory
        if isinstance(sync, bool):
            sync = "always" if sync else None
        # Another object may have opened the store, with another policy. `None` leaves it to that.
        self._durable = True if sync == "always" else None
        options: dict[str, Any] = {
            "sync": sync,
            "segment_size": within(max_segment_size, *_SEGMENT_SIZES),
            "segment_entries": max_entries_per_segment,
            "key_size_limit": max_key_size,
            "value_size_limit": max_value_size,
        }
        self._lease = Lease(os.fspath(base_directory), "bitcaskpy", options)

    def put(self, key: str, value: str) -> None:
        """Stores a value under a key."""
        if not isinstance(value, str):
            raise TypeError(f"a value has to be str, not {type(value).__name__}")
        self._lease.store.put(text_key(key), value.encode(), durable=self._durable)

    def get(self, key: str) -> Optional[str]:
        """Returns the value of a key, or ``None`` if it is absent."""
        value = self._lease.store.get(text_key(key))
        return None if value is None else value.decode()

    def delete(self, key: str) -> None:
        """Removes a key. Does nothing if it is absent."""
        self._lease.store.delete(text_key(key), durable=self._durable)

    def close(self) -> None:
        """Makes everything durable, and closes the store unless others in the process use it."""
        self._lease.release()

    @property
    def bitcask(self) -> Store:
        """The store itself, with everything that bitcaskpy does not have. Its keys are bytes."""
        return self._lease.store

    def __enter__(self) -> BitcaskStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_store(
    directory: Optional[Path] = None,
    sync: Optional[bool] = None,
    fsync_interval: Optional[float] = None,
    fsync_on_append: Optional[bool] = None,
    max_segment_size: Optional[int] = None,
    max_entries_per_segment: Optional[int] = None,
    max_key_size: Optional[int] = None,
    max_value_size: Optional[int] = None,
    *,
    path: Optional[Path] = None,
) -> BitcaskStore:
    """Opens the store in a directory, by default ``./data``.

    What is not given comes from the environment variables ``BITCASKPY_SYNC``,
    ``BITCASKPY_FSYNC_INTERVAL``, ``BITCASKPY_MAX_SEGMENT_SIZE`` and
    ``BITCASKPY_MAX_ENTRIES_PER_SEGMENT``. ``sync`` and ``fsync_on_append`` both mean that a write
    returns once it is durable.
    """
    if directory is not None and path is not None:
        raise TypeError("give `directory` or `path`, not both")
    if sync is None:
        sync = os.environ.get("BITCASKPY_SYNC", "").strip().lower() in ("1", "true", "yes", "on")
    store = BitcaskStore(
        directory if directory is not None else path if path is not None else "./data",
        sync="always" if sync or fsync_on_append else _interval(fsync_interval),
        max_segment_size=_setting(
            max_segment_size, "BITCASKPY_MAX_SEGMENT_SIZE", int, DEFAULT_MAX_SEGMENT_SIZE
        ),
        max_entries_per_segment=_setting(
            max_entries_per_segment, "BITCASKPY_MAX_ENTRIES_PER_SEGMENT", int, _MAX_ENTRIES
        ),
        max_key_size=max_key_size,
        max_value_size=max_value_size,
    )
    _opened.add(store)
    return store


def close_store(store: Optional[BitcaskStore] = None) -> None:
    """Closes a store, or all that ``open_store`` has returned. Raises the first error, after it has
    closed the others.
    """
    failure: Optional[Error] = None
    for opened in list(_opened) if store is None else [store]:
        try:
            opened.close()
        except Error as error:
            failure = failure or error
        _opened.discard(opened)
    if failure is not None:
        raise failure


def _interval(given: Optional[float]) -> float:
    interval = _setting(given, "BITCASKPY_FSYNC_INTERVAL", float, _FSYNC_INTERVAL)
    if not interval >= _INTERVAL_MIN:
        raise ValueError(
            f"`fsync_interval` is {interval} seconds: it has to be at least a millisecond; `sync=True` makes "
            f"every write durable"
        )
    return interval


def _setting(given: Any, name: str, kind: type, default: Any) -> Any:
    if given is not None:
        return given
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}, which is no number") from None
