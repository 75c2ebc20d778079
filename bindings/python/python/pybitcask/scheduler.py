"""Compaction in the background."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from .bitcask import Bitcask

log = logging.getLogger(__name__)

Callback = Callable[[dict[str, Any]], None]


class _Settings:
    """What a scheduler shares with its threads."""

    def __init__(self, interval: float, threshold: float, callback: Optional[Callback]) -> None:
        self.interval = interval
        self.threshold = threshold
        self.callback = callback


class _Run:
    """One thread of a scheduler, from its start to its end.

    It does not keep the store alive. It ends with a store that is closed or forgotten.
    """

    def __init__(self, bitcask: Bitcask, settings: _Settings) -> None:
        self.is_ending = False
        # Wakes the thread. Unlike a condition, a garbage collection may put something into it.
        self._changes: queue.SimpleQueue[None] = queue.SimpleQueue()
        changes = self._changes
        self._bitcask = weakref.ref(bitcask, lambda _: changes.put(None))
        self._settings = settings
        self.thread = threading.Thread(
            target=self._compact, name="BitcaskCompactionScheduler", daemon=True
        )
        self.thread.start()

    def note_change(self) -> None:
        """Makes the thread look at the settings, and at whether it is to end."""
        self._changes.put(None)

    def end(self) -> None:
        self.is_ending = True
        self.note_change()

    def _compact(self) -> None:
        while not self.is_ending and self._bitcask() is not None:
            if self._is_time():
                bitcask = self._bitcask()
                if bitcask is None or bitcask._lease.is_released:
                    return
                _compact(bitcask, self._settings, in_background=True)
                del bitcask

    def _is_time(self) -> bool:
        """Waits for the next check. Returns whether it is due, or something has changed before."""
        try:
            self._changes.get(timeout=min(self._settings.interval, threading.TIMEOUT_MAX))
        except queue.Empty:
            return True
        return False


class CompactionScheduler:
    """A thread that compacts a store whenever that is worthwhile.

    Interval and threshold can be changed at any time. What fails, here or in the callback, is
    logged, and the thread goes on. It does not keep the store open: when the program has closed or
    forgotten the store, the thread ends. The callback may stop the thread, and start another one.
    """

    def __init__(
        self,
        bitcask: Bitcask,
        interval_seconds: float = 300.0,
        threshold_ratio: float = 0.3,
        on_compaction_complete: Optional[Callback] = None,
    ) -> None:
        self._bitcask = bitcask
        self._settings = _Settings(interval_seconds, threshold_ratio, on_compaction_complete)
        # Guards the present run. With the process, because a fork takes neither lock nor thread.
        self._process, self._lock = os.getpid(), threading.Lock()
        self._run: Optional[_Run] = None
        self.interval_seconds = interval_seconds
        self.threshold_ratio = threshold_ratio

    @property
    def interval_seconds(self) -> float:
        """Seconds between two checks. A new interval starts anew."""
        return self._settings.interval

    @interval_seconds.setter
    def interval_seconds(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError("interval_seconds must be positive")
        self._settings.interval = seconds
        run = self._current()
        if run is not None:
            run.note_change()

    @property
    def threshold_ratio(self) -> float:
        """The dead share of the store from which it is compacted."""
        return self._settings.threshold

    @threshold_ratio.setter
    def threshold_ratio(self, ratio: float) -> None:
        if not 0.0 <= ratio <= 1.0:
            raise ValueError("threshold_ratio must be between 0.0 and 1.0")
        self._settings.threshold = ratio

    @property
    def is_running(self) -> bool:
        """Whether the thread runs."""
        return self._current() is not None

    def _current(self) -> Optional[_Run]:
        """Returns the run that has not ended, or ``None``."""
        if os.getpid() != self._process:
            self._process, self._lock, self._run = os.getpid(), threading.Lock(), None
        run = self._run
        return run if run is not None and run.thread.is_alive() else None

    def start(self) -> None:
        """Starts the thread, unless it runs. Raises ``Closed`` if the store is closed."""
        self._bitcask._check_open()
        self._current()
        with self._lock:
            run = self._current()
            if run is not None and not run.is_ending:
                log.warning("compaction is scheduled already")
                return
            self._run = _Run(self._bitcask, self._settings)

    def stop(self, timeout: Optional[float] = None) -> bool:
        """Stops the thread. Returns whether it has ended within ``timeout`` seconds.

        Called by the callback, it returns at once, and the thread ends after the callback.
        """
        end = None if timeout is None else time.monotonic() + timeout
        # More than one, if the callback starts another thread meanwhile.
        while (run := self._current()) is not None:
            run.end()
            if run.thread is threading.current_thread():
                with self._lock:
                    if self._run is run:
                        self._run = None
                return True
            run.thread.join(None if end is None else max(0.0, end - time.monotonic()))
            if run.thread.is_alive():
                log.warning("compaction has not ended within %s seconds", timeout)
                return False
        return True

    def trigger_compaction(self, force: bool = False) -> Optional[dict[str, Any]]:
        """Compacts now if that is worthwhile, or in any case. Returns what was done, or ``None``."""
        return _compact(self._bitcask, self._settings, force=force)


def _compact(
    bitcask: Bitcask, settings: _Settings, *, force: bool = False, in_background: bool = False
) -> Optional[dict[str, Any]]:
    try:
        if not force and not bitcask.should_compact(settings.threshold):
            return None
        result = bitcask.compact(settings.threshold, force)
    except Exception:
        # The program may close the store at any time, and at its end without stopping this.
        if not (in_background and bitcask._lease.is_released):
            log.exception("compaction has failed")
        return None
    if result["performed"] and settings.callback is not None:
        try:
            settings.callback(result)
        except Exception:
            log.exception("the callback of a compaction has failed")
    return result
