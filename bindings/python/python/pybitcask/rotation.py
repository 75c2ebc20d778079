"""When a new data file is begun."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime


class RotationStrategy(ABC):
    """Decides when a data file is full.

    A store uses the limits of the two strategies below. It cannot call one of the program's own,
    and warns about it.
    """

    @abstractmethod
    def should_rotate(
        self, file_size: int, entry_count: int, last_write_time: datetime
    ) -> bool:
        """Returns whether a file of this size, number of entries and age is full."""


class SizeBasedRotation(RotationStrategy):
    """A file is full at a size in bytes."""

    def __init__(self, max_size_bytes: int) -> None:
        self.max_size_bytes = max_size_bytes

    def should_rotate(
        self, file_size: int, entry_count: int, last_write_time: datetime
    ) -> bool:
        return file_size >= self.max_size_bytes


class EntryCountRotation(RotationStrategy):
    """A file is full at a number of entries."""

    def __init__(self, max_entries: int) -> None:
        self.max_entries = max_entries

    def should_rotate(
        self, file_size: int, entry_count: int, last_write_time: datetime
    ) -> bool:
        return entry_count >= self.max_entries
