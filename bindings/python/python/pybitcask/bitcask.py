"""The store of pybitcask: JSON values under text."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Mapping
from typing import Any, Optional, Union

from bitcask import Batch, Closed, Error, Store
from bitcask._moved import Lease, text_key, within

from .config import config
from .rotation import EntryCountRotation, RotationStrategy, SizeBasedRotation
from .scheduler import Callback, CompactionScheduler

# What a segment of bitcask can be.
_SEGMENT_SIZES = (512, 512 << 20)
# Below the first size no store is compacted, and below the second none of a single file.
_SMALL, _SMALL_SINGLE = 1 << 20, 10 << 20


class Bitcask:
    """A store of JSON values under text keys. Threads may share it.

    Objects of one process that open the same directory share one store; the options of the first
    one count. ``debug_mode`` is accepted and remembered: there is one file format, and
    ``bitcask dump`` shows it.
    """

    def __init__(
        self,
        directory: Union[str, os.PathLike[str], None] = None,
        debug_mode: Optional[bool] = None,
        rotation_strategy: Optional[RotationStrategy] = None,
    ) -> None:
        self.data_dir = config.get_data_dir(directory if directory is None else os.fspath(directory))
        self.debug_mode = config.get_debug_mode() if debug_mode is None else debug_mode
        self.rotation_strategy = rotation_strategy
        self._scheduler: Optional[CompactionScheduler] = None
        # As in pybitcask, nothing is compacted unless the program asks for it.
        options = {"merge": "manual", **_limits(rotation_strategy)}
        self._lease = Lease(str(self.data_dir), "pybitcask", options)

    @property
    def bitcask(self) -> Store:
        """The store itself, with everything that pybitcask does not have. Its keys are bytes, and
        its values JSON.
        """
        return self._lease.store

    def put(self, key: str, value: Any) -> None:
        """Stores a JSON value under a key."""
        self._lease.store.put(_key(key), _encoded(value))

    def get(self, key: str) -> Any:
        """Returns the value of a key, or ``None`` if it is absent."""
        value = self._lease.store.get(_key(key))
        return None if value is None else _decoded(value)

    def delete(self, key: str) -> bool:
        """Removes a key. Returns whether it was there."""
        return self._lease.store.delete(_key(key))

    def __contains__(self, key: str) -> bool:
        """Tells an absent key from a stored ``None``."""
        return _key(key) in self._lease.store

    def list_keys(self) -> list[str]:
        """Returns all keys, in the order of their bytes.

        Other programs may store keys that are no UTF-8. They are listed as ``os.fsdecode`` would
        decode them, and can be read and deleted under these names.
        """
        return [key.decode(errors="surrogateescape") for key in self._lease.store]

    def batch_write(self, data: Mapping[str, Any]) -> None:
        """Stores several values: all or none of them."""
        batch = Batch()
        for key, value in data.items():
            batch.put(_key(key), _encoded(value))
        self._lease.store.write(batch)

    def clear(self) -> None:
        """Removes everything."""
        self._lease.store.clear()

    def close(self) -> None:
        """Stops compaction in the background, makes everything durable, and closes the store
        unless others in the process use it.
        """
        self.stop_auto_compaction()
        self._lease.release()

    def __enter__(self) -> Bitcask:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_compaction_stats(self) -> dict[str, Any]:
        """Returns how large the store is, and how much of it is dead."""
        store = self._lease.store
        # Counting the keys makes sure that all of them are loaded, which the figures need.
        live_keys = len(store)
        stats = store.stats()
        return {
            "total_files": stats["segments"],
            "total_size": stats["log_size"],
            "live_keys": live_keys,
            "estimated_live_size": stats["live_size"],
            "estimated_dead_ratio": stats["dead_ratio"],
        }

    def should_compact(self, threshold_ratio: float = 0.3) -> bool:
        """Returns whether a compaction is worthwhile: not for small stores, and not below a dead
        share.
        """
        return _is_worthwhile(self.get_compaction_stats(), threshold_ratio)

    def compact(self, threshold_ratio: float = 0.3, force: bool = False) -> dict[str, Any]:
        """Removes what is dead from the files, if it is worthwhile or in any case. Reads and writes
        go on meanwhile. Raises ``RuntimeError`` if it fails.
        """
        before = self.get_compaction_stats()
        if not force and not _is_worthwhile(before, threshold_ratio):
            return {"performed": False, "reason": "threshold_not_met", "initial_stats": before}
        start, files = time.monotonic(), self._files()
        try:
            report = self._lease.store.merge(force=True)
            after = self.get_compaction_stats()
            removed = sorted(files - self._files())
        except Closed as error:
            raise RuntimeError("Compaction ended because the store was closed meanwhile") from error
        except Error as error:
            raise RuntimeError(f"Compaction failed: {error}") from error
        saved = before["total_size"] - after["total_size"]
        return {
            "performed": True,
            "duration_seconds": time.monotonic() - start,
            "records_written": report["live_entries"],
            "bytes_written": report["size_out"],
            "files_removed": len(removed),
            "removed_files": removed,
            "initial_stats": before,
            "final_stats": after,
            "space_saved_bytes": saved,
            "space_saved_ratio": saved / before["total_size"] if before["total_size"] else 0.0,
        }

    def _files(self) -> set[str]:
        names = os.listdir(self._lease.store.path)
        return {name for name in names if name.endswith(".log")}

    def start_auto_compaction(
        self,
        interval_seconds: float = 300.0,
        threshold_ratio: float = 0.3,
        on_compaction_complete: Optional[Callback] = None,
    ) -> CompactionScheduler:
        """Compacts in the background from now on. A scheduler that runs already is stopped."""
        self._check_open()
        scheduler = CompactionScheduler(
            self, interval_seconds, threshold_ratio, on_compaction_complete
        )
        self.stop_auto_compaction()
        self._scheduler = scheduler
        scheduler.start()
        return scheduler

    def _check_open(self) -> None:
        """Raises ``Closed`` if the store is closed."""
        self._lease.store.stats()

    def stop_auto_compaction(self, timeout: Optional[float] = 5.0) -> bool:
        """Stops compacting in the background. Returns whether it has ended in time."""
        if self._scheduler is None:
            return True
        has_ended = self._scheduler.stop(timeout)
        if has_ended:
            self._scheduler = None
        return has_ended

    @property
    def auto_compaction_running(self) -> bool:
        """Whether the store is compacted in the background."""
        return self._scheduler is not None and self._scheduler.is_running


def _limits(strategy: Optional[RotationStrategy]) -> dict[str, Any]:
    if isinstance(strategy, SizeBasedRotation):
        return {"segment_size": within(strategy.max_size_bytes, *_SEGMENT_SIZES)}
    if isinstance(strategy, EntryCountRotation):
        return {"segment_entries": max(1, strategy.max_entries)}
    if strategy is not None:
        name = type(strategy).__name__
        warnings.warn(f"{name} has no effect: a store rotates by size and entries", stacklevel=3)
    return {}


def _is_worthwhile(stats: dict[str, Any], threshold_ratio: float) -> bool:
    size = stats["total_size"]
    if size < _SMALL or (stats["total_files"] < 2 and size < _SMALL_SINGLE):
        return False
    return stats["estimated_dead_ratio"] >= threshold_ratio


def _key(key: Any) -> bytes:
    # As `list_keys` decodes it.
    return text_key(key, "surrogateescape")


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def _decoded(value: bytes) -> Any:
    # Other programs store text without quotes, as the HTTP server and `pbc` do.
    text = value.decode()
    try:
        return json.loads(text)
    except ValueError:
        return text
