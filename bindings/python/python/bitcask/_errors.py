"""The exceptions. Their messages say what happened, where, and what to do about it."""

from typing import Any


class Error(Exception):
    """The base of all exceptions of this package, except ``KeyError`` and ``TypeError``."""


class StorageError(Error, OSError):
    """The store or its files are not usable. ``errno`` is set if the system has a code for that."""

    def __reduce__(self) -> tuple[Any, ...]:
        # `OSError` keeps only the arguments, so other processes would receive no code.
        kind, arguments = super().__reduce__()[:2]
        return kind, arguments, {**self.__dict__, "errno": self.errno}


class NotFound(StorageError, FileNotFoundError):
    """There is no store at the path, and the options did not allow creating one."""


class Locked(StorageError):
    """Another process, or another object in this one, has the store open for writing."""


class Corrupt(StorageError):
    """Bytes on disk differ from what was written, or a file is missing. Nothing was changed."""


class NoSpace(StorageError):
    """The disk is full. Nothing was written, and the store stays usable."""


class Poisoned(StorageError):
    """An earlier write failed half-way. Reads still work; reopen the store to write again."""


class Unsupported(StorageError):
    """A newer release, or a build with more features, wrote the file."""


class Forked(Error, RuntimeError):
    """The process was forked after the store was opened. Open it again, or fork earlier."""


class Conflict(Error):
    """A transaction used up its attempts. Nothing was written; it can be run again."""


class InvalidInput(Error, ValueError):
    """The call was at fault: an oversized key or value, or an invalid option."""


class ReadOnlyError(InvalidInput):
    """The store was opened read-only."""


class Closed(Error, ValueError):
    """The store or the snapshot is closed."""


# Tracebacks and pickles name the place from which programs import them.
for _class in list(globals().values()):
    if isinstance(_class, type):
        _class.__module__ = "bitcask"
