"""An embedded key-value store, as a mapping of bytes to bytes.

    import bitcask

    with bitcask.open("data") as db:
        db[b"answer"] = b"42"
        for key, value in db.prefix(b"ans"):
            print(key, value)

Keys and values are ``bytes``; ``bytearray`` and ``memoryview`` are accepted, ``str`` is not.
Threads share a store. Every call releases the interpreter's lock while the store works.
"""

from ._bitcask import Batch
from ._errors import (
    Closed,
    Conflict,
    Corrupt,
    Error,
    Forked,
    InvalidInput,
    Locked,
    NoSpace,
    NotFound,
    Poisoned,
    ReadOnlyError,
    StorageError,
    Unsupported,
)
from ._store import Snapshot, Store, Transaction, open

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Closed",
    "Conflict",
    "Corrupt",
    "Error",
    "Forked",
    "InvalidInput",
    "Locked",
    "NoSpace",
    "NotFound",
    "Poisoned",
    "ReadOnlyError",
    "Snapshot",
    "StorageError",
    "Store",
    "Transaction",
    "Unsupported",
    "open",
]
