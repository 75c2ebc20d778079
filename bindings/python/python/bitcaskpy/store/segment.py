"""One segment of bitcaskpy's own files: `segment_N.log`, with `.hint` and `.index` beside it.

``BitcaskStore`` does not use this. It is for programs that read or write bitcaskpy's files
themselves, without what went wrong there: sizes come from the log and not from the hint, a hint
that cannot be read is written anew, nothing is appended behind a torn record, even if the program
goes on after an append that has failed, and paths follow the directory.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from ..config.defaults import (
    DEFAULT_MAX_SEGMENT_ENTRIES,
    DEFAULT_MAX_SEGMENT_SIZE,
    DEFAULT_METADATA_SYNC_INTERVAL_SECONDS,
)
from .entry import HEADER_SIZE, Entry, key_text


@dataclass
class Segment:
    """A segment: its files, its fill level, and its limits."""

    id: int
    filepath: str
    metadata_filepath: str
    index_filepath: str
    size: int
    num_entries: int
    active: bool
    max_size: int
    max_entries: int
    closed: bool
    created_at: float
    metadata_sync_interval: float = DEFAULT_METADATA_SYNC_INTERVAL_SECONDS
    last_sync: float = field(default_factory=time.time)

    @staticmethod
    def new_segment(
        id: int,
        base_path: str,
        max_size: int = DEFAULT_MAX_SEGMENT_SIZE,
        max_entries: int = DEFAULT_MAX_SEGMENT_ENTRIES,
    ) -> Segment:
        """Creates the files of an empty segment."""
        os.makedirs(base_path, exist_ok=True)
        segment = Segment._at(id, base_path, max_size=max_size, max_entries=max_entries)
        for path in (segment.filepath, segment.index_filepath):
            open(path, "ab").close()
        segment._write_hint()
        return segment

    @staticmethod
    def open_segment(id: int, base_path: str) -> Segment:
        """Opens a segment that exists, or raises ``FileNotFoundError``."""
        segment = Segment._at(id, base_path)
        if not os.path.exists(segment.filepath):
            raise FileNotFoundError(f"there is no segment {segment.filepath}")
        end = 0
        for offset, entry in segment.entries():
            segment.num_entries, end = segment.num_entries + 1, offset + entry.size()
        segment.size = os.path.getsize(segment.filepath)
        segment.created_at = os.path.getctime(segment.filepath)
        try:
            with open(segment.metadata_filepath, encoding="utf-8") as file:
                hint = json.load(file)
            segment.active, segment.closed = bool(hint["active"]), bool(hint["closed"])
            segment.max_size, segment.max_entries = int(hint["max_size"]), int(hint["max_entries"])
        except (OSError, ValueError, KeyError, TypeError):
            # Nothing is appended to a segment of which so little is known.
            segment.close()
        if end < segment.size and not segment.closed:
            # A crash has torn the last record. What is appended to it would be read as its end.
            segment.close()
        return segment

    @staticmethod
    def _at(id: int, base_path: str, **given: Any) -> Segment:
        stem = f"{base_path}/segment_{id}"
        fields: dict[str, Any] = {
            "max_size": DEFAULT_MAX_SEGMENT_SIZE,
            "max_entries": DEFAULT_MAX_SEGMENT_ENTRIES,
            "size": 0,
            "num_entries": 0,
            "active": True,
            "closed": False,
            "created_at": time.time(),
        }
        log, hint, index = (f"{stem}.{extension}" for extension in ("log", "hint", "index"))
        return Segment(id, log, hint, index, **{**fields, **given})

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of the hint file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Segment:
        """Returns the segment that a hint file describes."""
        names = cls.__dataclass_fields__
        return cls(**{name: value for name, value in data.items() if name in names})

    def is_full(self) -> bool:
        """Returns whether the segment takes no more records."""
        return self.size >= self.max_size or self.num_entries >= self.max_entries

    def has_room(self, entry: Entry) -> bool:
        """Returns whether a record fits."""
        return not self.is_full() and self.size + entry.size() <= self.max_size

    def is_active(self) -> bool:
        """Returns whether records are appended to the segment."""
        return self.active and not self.closed

    def close(self) -> None:
        """Ends the segment: nothing is appended any more."""
        self.active, self.closed = False, True
        self._write_hint()

    def append(self, entry: Entry) -> None:
        """Appends a record, or raises ``ValueError`` if it does not fit or the segment has ended.

        If the disk is full, or anything else fails, nothing is appended.
        """
        if self.closed:
            raise ValueError("Segment is closed")
        if not self.has_room(entry):
            raise ValueError("Segment is full")
        if os.path.getsize(self.filepath) != self.size:
            # Where the record would lie is not where it would be looked for.
            self.close()
            raise ValueError("Segment was changed by another program")
        record = entry.serialize()
        row = {
            "key": key_text(entry),
            "offset": self.size,
            "size": entry.value_size,
            "timestamp": entry.timestamp,
        }
        size, entries, index_size = self.size, self.num_entries, 0
        with suppress(FileNotFoundError):
            index_size = os.path.getsize(self.index_filepath)
        try:
            with open(self.filepath, "ab") as log:
                log.write(record)
            with open(self.index_filepath, "a", encoding="utf-8") as index:
                index.write(json.dumps(row) + "\n")
            self.size, self.num_entries = size + len(record), entries + 1
        except BaseException:
            self.size, self.num_entries = size, entries
            self._undo_append(index_size)
            raise
        if time.time() - self.last_sync >= self.metadata_sync_interval:
            # The record is there. The sizes come from the log when it is opened.
            with suppress(OSError):
                self._write_hint()

    def _undo_append(self, index_size: int) -> None:
        """Removes what an append has left that failed, or ends the segment if that fails too."""
        try:
            os.truncate(self.filepath, self.size)
            with suppress(FileNotFoundError):
                os.truncate(self.index_filepath, index_size)
        except OSError:
            self.active, self.closed = False, True
            with suppress(OSError):
                self._write_hint()

    def read(self, offset: int) -> Entry:
        """Reads the record at an offset, or raises ``ValueError`` if none is complete there."""
        with open(self.filepath, "rb") as log:
            log.seek(offset)
            header = log.read(HEADER_SIZE)
            sizes = int.from_bytes(header[8:12], "big") + int.from_bytes(header[12:16], "big")
            return Entry.deserialize(header + log.read(sizes))

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """Returns all complete records with their offsets, up to the first torn one."""
        offset, size = 0, os.path.getsize(self.filepath)
        while offset < size:
            try:
                entry = self.read(offset)
            except ValueError:
                return
            yield offset, entry
            offset += entry.size()

    def _write_hint(self) -> None:
        # A clock that stands still must not make two writes look like one.
        self.last_sync = max(time.time(), self.last_sync + 1e-6)
        temporary = self.metadata_filepath + ".tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(self.to_dict(), file, indent=2)
        os.replace(temporary, self.metadata_filepath)
