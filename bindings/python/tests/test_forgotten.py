"""Stores of the older systems that a program forgets, and their compaction in the background."""

import gc
import threading

import pytest

import bitcask
from pybitcask import Bitcask, CompactionScheduler


def waste(store):
    """Writes 20 MB, of which a twentieth is live."""
    for number in range(20):
        store.put("key", "x" * 1_000_000)
        store.put(f"small{number}", number)


def wait_for_end(threads):
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def schedulers():
    return [
        thread for thread in threading.enumerate() if thread.name == "BitcaskCompactionScheduler"
    ]


# The thread kept the store open, and its directory locked, for the rest of the program.
def test_a_store_that_compacts_in_the_background_is_closed_when_it_is_forgotten(tmp_path):
    store = Bitcask(tmp_path)
    store.start_auto_compaction(3600)
    threads = schedulers()
    assert len(threads) == 1
    del store
    gc.collect()
    bitcask.open(tmp_path, create=False).close()
    wait_for_end(threads)


def test_a_scheduler_keeps_its_store_and_a_store_its_scheduler(tmp_path):
    done = threading.Event()
    scheduler = CompactionScheduler(Bitcask(tmp_path), 3600, 0.5)
    gc.collect()
    assert scheduler.trigger_compaction(force=True)["performed"] is True
    del scheduler
    gc.collect()
    with Bitcask(tmp_path) as store:
        CompactionScheduler(store, 1e-3, 0.5, lambda _: done.set()).start()
        gc.collect()
        waste(store)
        assert done.wait(60)
        threads = schedulers()
    del store
    gc.collect()
    wait_for_end(threads)


# The thread that was stopped did not end, because the start had withdrawn the stop.
def test_a_callback_can_start_the_scheduler_anew(tmp_path):
    restarted = threading.Event()

    def restart(result):
        old.append(threading.current_thread())
        assert scheduler.stop() is True and not scheduler.is_running
        scheduler.start()
        restarted.set()

    old = []
    with Bitcask(tmp_path) as store:
        waste(store)
        scheduler = store.start_auto_compaction(3600, 0.5, restart)
        scheduler.interval_seconds = 1e-3
        assert restarted.wait(60)
        wait_for_end(old)
        assert scheduler.is_running and len(schedulers()) == 1
        assert store.stop_auto_compaction(60) is True
        assert schedulers() == []


def test_stopping_waits_for_a_thread_that_the_callback_has_started_meanwhile(tmp_path):
    entered, go_on = threading.Event(), threading.Event()

    def restart(result):
        entered.set()
        assert go_on.wait(60)
        scheduler.stop()
        scheduler.start()

    with Bitcask(tmp_path) as store:
        waste(store)
        scheduler = store.start_auto_compaction(3600, 0.5, restart)
        scheduler.interval_seconds = 1e-3
        assert entered.wait(60)
        run = scheduler._run
        stopper = threading.Thread(target=scheduler.stop)
        stopper.start()
        while not run.is_ending:
            pass
        go_on.set()
        stopper.join()
        assert not scheduler.is_running and schedulers() == []


# The store stayed open, and nobody could reach it any more.
def test_a_store_can_be_forgotten_within_its_own_transaction(tmp_path):
    class Holder:
        pass

    holder = Holder()
    holder.store, holder.itself = Bitcask(tmp_path), holder
    store = holder.store.bitcask
    holders = [holder]
    del holder

    def run(tx):
        tx[b"a"] = b"1"
        holders.clear()
        gc.collect()

    with pytest.raises(bitcask.Closed):
        store.transaction(run)
    with Bitcask(tmp_path) as store:
        assert store.list_keys() == []
