"""The segments of a directory of bitcaskpy's own files. See ``segment``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ..config.defaults import DEFAULT_MAX_SEGMENT_ENTRIES, DEFAULT_MAX_SEGMENT_SIZE
from .entry import Entry
from .segment import Segment


@dataclass
class AppendResult:
    """Where a record was appended."""

    segment_id: int
    offset: int
    entry_size: int


class SegmentManager:
    """Appends records to the newest segment, and begins another one when it is full."""

    def __init__(
        self,
        base_directory: str,
        max_segment_size: int = DEFAULT_MAX_SEGMENT_SIZE,
        max_segment_entries: int = DEFAULT_MAX_SEGMENT_ENTRIES,
    ) -> None:
        self.base_directory = base_directory
        self.max_segment_size = max_segment_size
        self.max_segment_entries = max_segment_entries
        os.makedirs(base_directory, exist_ok=True)
        names = (re.fullmatch(r"segment_(\d+)\.log", name) for name in os.listdir(base_directory))
        ids = sorted(int(name[1]) for name in names if name)
        self.segments = {id: Segment.open_segment(id, base_directory) for id in ids}
        self.next_segment_id = ids[-1] + 1 if ids else 0
        # Only the newest one can be active, whatever the hints of others say.
        if ids and self.segments[ids[-1]].is_active():
            self.active_segment_id = ids[-1]
        else:
            self._begin_segment()

    def _begin_segment(self) -> Segment:
        id = self.next_segment_id
        segment = Segment.new_segment(
            id, self.base_directory, self.max_segment_size, self.max_segment_entries
        )
        self.segments[id] = segment
        self.active_segment_id, self.next_segment_id = id, id + 1
        return segment

    def get_active_segment(self) -> Segment:
        """Returns the segment to which records are appended."""
        return self.segments[self.active_segment_id]

    def append(self, entry: Entry) -> AppendResult:
        """Appends a record, to a new segment if it does not fit into the active one."""
        segment = self.get_active_segment()
        is_full = segment.is_full() or (segment.num_entries > 0 and not segment.has_room(entry))
        # A segment also ends if an append has failed and could not be undone.
        if is_full or not segment.is_active():
            segment.close()
            segment = self._begin_segment()
        offset = segment.size
        segment.append(entry)
        return AppendResult(segment.id, offset, entry.size())

    def read(self, segment_id: int, offset: int) -> Entry:
        """Reads a record."""
        return self.get_segment(segment_id).read(offset)

    def get_segments(self) -> list[Segment]:
        """Returns all segments, the oldest first."""
        return list(self.segments.values())

    def get_segment(self, segment_id: int) -> Segment:
        """Returns a segment, or raises ``ValueError`` if there is none with this id."""
        segment = self.segments.get(segment_id)
        if segment is None:
            raise ValueError(f"Segment {segment_id} not found")
        return segment
