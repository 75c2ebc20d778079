"""The store, and classes that read and write the files of bitcaskpy itself."""

from .bitcask_store import BitcaskStore, close_store, open_store
from .entry import Entry
from .hash_table import HashTable, HashTableEntry
from .segment import Segment
from .segment_manager import AppendResult, SegmentManager

__all__ = [
    "AppendResult",
    "BitcaskStore",
    "Entry",
    "HashTable",
    "HashTableEntry",
    "Segment",
    "SegmentManager",
    "close_store",
    "open_store",
]
