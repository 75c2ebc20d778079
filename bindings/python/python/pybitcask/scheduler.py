"""Compaction in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from .bitcask import Bitcask

log = logging.getLogger(__name__)

Callback = Callable[[dict[str, Any]], None]


class CompactionScheduler:
    """A thread that compacts a store whenever that is worthwhile.

    Interval and threshold can be changed at any time. What fails, here or in the callback, is
    logged, and the thread goes on.
    """

    def __init__(
        self,
        bitcask: Bitcask,
        interval_seconds: float = 300.0,
        threshold_ratio: float = 0.3,
        on_compaction_complete: Optional[Callback] = None,
    ) -> None:
        self._bitcask = bitcask
        self._callback = on_compaction_complete
        # Guards what follows, and wakes the thread when it changes.
        self._changed = threading.Condition()
        self._thread: Optional[threading.Thread] = None
        self._is_ending = False
        self.interval_seconds = interval_seconds
        self.threshold_ratio = threshold_ratio

    @property
    def interval_seconds(self) -> float:
        """Seconds between two checks."""
        return self._interval

    @interval_seconds.setter
    def interval_seconds(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError("interval_seconds must be positive")
        with self._changed:
            self._interval = seconds
            self._changed.notify_all()

    @property
    def threshold_ratio(self) -> float:
        """The dead share of the store from which it is compacted."""
        return self._threshold

    @threshold_ratio.setter
    def threshold_ratio(self, ratio: float) -> None:
        if not 0.0 <= ratio <= 1.0:
            raise ValueError("threshold_ratio must be between 0.0 and 1.0")
        self._threshold = ratio

    @property
    def is_running(self) -> bool:
        """Whether the thread runs."""
        with self._changed:
            return self._thread is not None

    def start(self) -> None:
        """Starts the thread, unless it runs."""
        with self._changed:
            if self._thread is not None:
                log.warning("compaction is scheduled already")
                return
            self._is_ending = False
            self._thread = threading.Thread(
                target=self._run, name="BitcaskCompactionScheduler", daemon=True
            )
            self._thread.start()

    def stop(self, timeout: Optional[float] = None) -> bool:
        """Stops the thread. Returns whether it has ended within ``timeout`` seconds."""
        with self._changed:
            thread = self._thread
            self._is_ending = True
            self._changed.notify_all()
        if thread is None:
            return True
        if thread is not threading.current_thread():
            thread.join(timeout)
            if thread.is_alive():
                log.warning("compaction has not ended within %s seconds", timeout)
                return False
        with self._changed:
            self._thread = None
        return True

    def trigger_compaction(self, force: bool = False) -> Optional[dict[str, Any]]:
        """Compacts now if that is worthwhile, or in any case. Returns what was done, or ``None``."""
        try:
            if not force and not self._bitcask.should_compact(self.threshold_ratio):
                return None
            result = self._bitcask.compact(self.threshold_ratio, force)
        except Exception:
            log.exception("compaction has failed")
            return None
        if result["performed"] and self._callback is not None:
            try:
                self._callback(result)
            except Exception:
                log.exception("the callback of a compaction has failed")
        return result

    def _run(self) -> None:
        while self._wait():
            self.trigger_compaction()

    def _wait(self) -> bool:
        """Waits for the next check. Returns whether there is one. A new interval starts anew."""
        with self._changed:
            while not self._is_ending:
                if not self._changed.wait(self._interval):
                    return True
            return False
