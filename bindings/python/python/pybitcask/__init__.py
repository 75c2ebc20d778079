"""The classes and calls of pybitcask, for programs that were written for it.

``Bitcask(directory)`` stores any JSON value under a text key. The store is one of ``bitcask``. A
directory that pybitcask itself wrote is imported into its subdirectory ``bitcask`` when it is
first opened; the old files stay as they are.
"""

from .bitcask import Bitcask
from .rotation import EntryCountRotation, RotationStrategy, SizeBasedRotation
from .scheduler import CompactionScheduler

__version__ = "0.1.0"

__all__ = [
    "Bitcask",
    "CompactionScheduler",
    "EntryCountRotation",
    "RotationStrategy",
    "SizeBasedRotation",
]
