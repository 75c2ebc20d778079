"""Where the newest record of each key lies in bitcaskpy's own files. See ``segment``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Optional

from .entry import key_text
from .segment_manager import SegmentManager


@dataclass
class HashTableEntry:
    """The place of a record: ``value_pos`` is the offset at which the record begins."""

    segment_id: int
    value_size: int
    value_pos: int
    timestamp: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> HashTableEntry:
        return HashTableEntry(**data)


class HashTable:
    """A table from keys to places."""

    def __init__(self) -> None:
        self.table: dict[str, HashTableEntry] = {}

    def recover_from_segment_manager(self, segment_manager: SegmentManager) -> None:
        """Reads the logs. The last record of a key counts, whatever the clock showed."""
        for segment in segment_manager.get_segments():
            for offset, entry in segment.entries():
                key = key_text(entry)
                if entry.tombstone:
                    self.delete(key)
                else:
                    self.put(key, segment.id, offset, entry.value_size, entry.timestamp)

    def get(self, key: str) -> Optional[HashTableEntry]:
        """Returns the place of a key's newest record, or ``None``."""
        return self.table.get(key)

    def put(self, key: str, segment_id: int, offset: int, size: int, timestamp: float) -> None:
        """Notes the place of a key's newest record."""
        self.table[key] = HashTableEntry(segment_id, size, offset, timestamp)

    def delete(self, key: str) -> None:
        """Forgets a key, which may be absent."""
        self.table.pop(key, None)

    def size(self) -> int:
        """Returns the number of keys."""
        return len(self.table)
