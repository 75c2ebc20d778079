"""One record of bitcaskpy's files.

A record is a header of 17 bytes, the key and the value, all big-endian: the time as a 64-bit
float, the sizes of key and value as 32-bit integers, and a byte that is 1 for a delete.

Here the sizes are those of the bytes. bitcaskpy's store wrote the number of characters instead, so
records of text that is not ASCII cannot be read here. ``bitcaskpy.open_store`` imports them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_HEADER = struct.Struct(">dII?")
HEADER_SIZE = _HEADER.size


@dataclass
class Entry:
    """A put or a delete. The sizes are those of the bytes."""

    timestamp: float
    key_size: int
    value_size: int
    key: bytes
    value: bytes
    tombstone: bool = False

    def is_tombstone(self) -> bool:
        """Returns whether the record is a delete."""
        return self.tombstone

    def header_size(self) -> int:
        """Returns the size of what precedes the key."""
        return HEADER_SIZE

    def size(self) -> int:
        """Returns the size of the whole record."""
        return HEADER_SIZE + self.key_size + self.value_size

    def serialize(self) -> bytes:
        """Returns the record's bytes."""
        header = _HEADER.pack(self.timestamp, self.key_size, self.value_size, self.tombstone)
        return header + self.key + self.value

    @staticmethod
    def deserialize(data: bytes) -> Entry:
        """Reads a record, or raises ``ValueError`` if its end is missing."""
        if len(data) < HEADER_SIZE:
            raise ValueError(f"a record has at least {HEADER_SIZE} bytes, here are {len(data)}")
        timestamp, key_size, value_size, tombstone = _HEADER.unpack_from(data)
        middle = HEADER_SIZE + key_size
        end = middle + value_size
        if len(data) < end:
            raise ValueError(f"the record has {end} bytes, here are {len(data)}")
        key, value = data[HEADER_SIZE:middle], data[middle:end]
        return Entry(timestamp, key_size, value_size, key, value, tombstone)


def key_text(entry: Entry) -> str:
    """Returns the key as text. Bytes that are no text are left out."""
    return entry.key.decode(errors="ignore")
