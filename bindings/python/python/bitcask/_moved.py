"""What the modules for programs of older systems share: stores that move in, and shared stores.

- A directory that an older system wrote is imported once, into its subdirectory ``bitcask``. Its
  own files are only read. An import that was interrupted is completed the next time.
- The older systems let a program open a directory several times. Here all objects of a process
  that open it share one store, which closes with the last of them.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import weakref
from collections import deque
from typing import Any, Optional

from ._errors import Closed, Error, StorageError
from ._store import Store

# What the segments of the older systems are called.
_FILES = {"bitcaskpy": r"segment_\d+\.log", "pybitcask": r"data_\d+\.db"}
# Where an imported store lies in the old directory, and where while it is being imported.
SUBDIRECTORY, UNFINISHED = "bitcask", "bitcask.importing"


class _Shared:
    """A store and those in this process that use it, each by an object of its own."""

    def __init__(self, key: tuple[int, str], store: Store) -> None:
        self.key = key
        self.store = store
        self.users: set[object] = set()


# Guards the stores and their users. Reentrant, because a signal handler can open or close a store.
# Nothing is logged under it: a handler of the program may hold a lock, and close a store.
_lock = threading.RLock()
# The leases that were collected, until they are released.
_collected: deque[tuple[_Shared, object]] = deque()


def _renew_lock() -> None:
    """Replaces the lock in a forked process, where the thread that holds it may not exist."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)
# By process and directory: a forked process has none of its parent's stores.
_shared: dict[tuple[int, str], _Shared] = {}


class Lease:
    """One user's share of a store. It ends when it is released or collected, or at exit."""

    def __init__(self, directory: str, system: str, options: dict[str, Any]) -> None:
        os.makedirs(directory, exist_ok=True)
        directory = os.path.realpath(directory)
        reports: list[dict[str, Any]] = []
        try:
            shared, user = _acquire(directory, system, options, reports)
            self._shared, self._user = shared, user
            self._end = weakref.finalize(self, _collect, shared, user)
        finally:
            try:
                # Only now: a signal during this must not lose the share.
                _release_collected()
            finally:
                for report in reports:
                    _tell(directory, system, report)

    @property
    def store(self) -> Store:
        """The store, or ``Closed`` if the lease has ended."""
        if not self._end.alive:
            raise Closed("the store is closed")
        return self._shared.store

    @property
    def is_released(self) -> bool:
        return not self._end.alive

    def release(self) -> None:
        """Makes everything durable, and ends the lease, which closes the store if it is the last one.
        Raises the first error, but the lease ends all the same: a store that cannot be written to any
        more has to be closed before it can be opened again. Only if a signal interrupts this, it can
        be called again.
        """
        if not self._end.alive:
            return
        failure = _sync_store(self._shared)
        end_failure = _release(self._shared, self._user)
        self._end.detach()
        if failure or end_failure:
            raise failure or end_failure


def _sync_store(shared: _Shared) -> Optional[Error]:
    try:
        shared.store.sync()
    except Closed:
        # A signal has interrupted an earlier call, or the program has closed the store itself.
        pass
    except Error as error:
        return error
    return None


def _acquire(
    directory: str, system: str, options: dict[str, Any], reports: list[dict[str, Any]]
) -> tuple[_Shared, object]:
    """Returns the store of a directory, and a new user of it. Adds what is to be logged to the
    reports, even if this fails.
    """
    key, user = (os.getpid(), directory), object()
    with _lock:
        shared = _shared.get(key)
        if shared is not None:
            shared.users.add(user)
            # A release may have come in between.
            if not shared.store.closed:
                return shared, user
            shared.users.discard(user)
        store = Store(moved_in(directory, system, reports), **options)
        _shared[key] = shared = _Shared(key, store)
        shared.users.add(user)
        return shared, user


def _release(shared: _Shared, user: object) -> Optional[Error]:
    """Ends a user's share, and closes the store after the last one. Returns what went wrong."""
    try:
        with _lock:
            return _end_share(shared, user)
    finally:
        _release_collected()


def _end_share(shared: _Shared, user: object) -> Optional[Error]:
    failure = None
    if user in shared.users:
        if len(shared.users) == 1:
            try:
                shared.store.close()
            except Error as error:
                failure = error
            # Anything else, such as Ctrl-C, leaves the store to the next call.
        _forget(shared, user)
    return failure


def _collect(shared: _Shared, user: object) -> None:
    """Releases a lease that was collected, or leaves that to the thread that holds the lock.

    It must not wait: a collection can begin anywhere, such as in a logging handler, whose lock the
    thread that holds this one may need.
    """
    _collected.append((shared, user))
    _release_collected()


def _release_collected() -> None:
    # If the lock is taken, its holder comes here after it has let go.
    while _collected and (lock := _lock).acquire(blocking=False):
        try:
            # Another thread may have been faster.
            if _collected:
                _end_share(*_collected[0])
                # An exception, such as Ctrl-C, has left it to the next call.
                _collected.popleft()
        finally:
            lock.release()


def _forget(shared: _Shared, user: object) -> None:
    shared.users.discard(user)
    if not shared.users and _shared.get(shared.key) is shared:
        del _shared[shared.key]


def moved_in(directory: str, system: str, reports: list[dict[str, Any]]) -> str:
    """Returns where the store of a directory lies. Imports what an older system has left there, and
    adds a report of that.
    """
    inner = os.path.join(directory, SUBDIRECTORY)
    if _is_store(directory):
        return directory
    if _is_store(inner):
        return inner
    if not any(re.fullmatch(_FILES[system], name) for name in os.listdir(directory)):
        return directory
    report = _import(directory, system, inner)
    if report is not None:
        reports.append(report)
    return inner


def _is_store(directory: str) -> bool:
    return os.path.exists(os.path.join(directory, "MANIFEST"))


def _import(directory: str, system: Any, inner: str) -> Optional[dict[str, Any]]:
    """Imports the files of an older system. Returns ``None`` if another process was faster."""
    _check_room(inner, system)
    unfinished = os.path.join(directory, UNFINISHED)
    with Store(unfinished) as db:
        # Another process may have imported the same files since they were looked for.
        report = None if _is_store(inner) else db.import_from(system, directory)
    try:
        if report is not None:
            os.rename(unfinished, inner)
    except OSError:
        # Another process was faster, and may have moved the store to which this one has imported.
        if not _is_store(inner):
            raise
        report = None
    _sync(directory)
    if report is None:
        shutil.rmtree(unfinished, ignore_errors=True)
    return report


def _check_room(inner: str, system: str) -> None:
    """Raises ``StorageError`` if something else lies where the imported store is to lie."""
    try:
        is_free = not os.listdir(inner)
    except FileNotFoundError:
        is_free = not os.path.lexists(inner)
    except NotADirectoryError:
        is_free = False
    # Another process may have imported the files by now.
    if not is_free and not _is_store(inner):
        raise StorageError(
            f"{inner} is no store; nothing was changed, but the files of {system} beside it are to be "
            f"imported to this place, so move it away"
        )


def _sync(directory: str) -> None:
    """Makes the renaming durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tell(directory: str, system: str, report: dict[str, Any]) -> None:
    log = logging.getLogger(system)
    log.info("imported %d keys of %s", report["keys"], directory)
    for skipped in report["skipped"]:
        log.warning("not imported, as it is no valid record: %s", skipped)


def text_key(key: Any, errors: str = "strict") -> bytes:
    """Returns the bytes of a key that has to be text. ``errors`` is that of ``str.encode``."""
    if not isinstance(key, str):
        raise TypeError(f"a key has to be str, not {type(key).__name__}")
    return key.encode(errors=errors)


def within(value: Optional[int], low: int, high: int) -> Optional[int]:
    """Returns the closest size that the store accepts."""
    return None if value is None else max(low, min(value, high))
