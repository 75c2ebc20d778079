"""The classes and calls of bitcaskpy, for programs that were written for it.

``open_store(directory)`` returns a ``BitcaskStore`` with ``put``, ``get`` and ``delete`` for text.
The store is one of ``bitcask``. A directory that bitcaskpy itself wrote is imported into its
subdirectory ``bitcask`` when it is first opened; the old files stay as they are.
"""

from .store.bitcask_store import BitcaskStore, close_store, open_store

__version__ = "0.1.0"

__all__ = ["BitcaskStore", "close_store", "open_store"]
