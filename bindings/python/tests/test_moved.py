"""The stores of the older systems that objects share: how they end, whatever else goes wrong."""

import gc
import logging
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

import bitcask
import bitcaskpy
import pybitcask
from bitcask import _moved
from bitcaskpy.store import Entry, SegmentManager

KINDS = [pybitcask.Bitcask, bitcaskpy.BitcaskStore]


@contextmanager
def replaced(directory):
    """Puts another directory in the place of a store, whose writes fail from then on."""
    away = directory.with_name(f"{directory.name}-away")
    directory.rename(away)
    directory.mkdir()
    yield
    directory.rmdir()
    away.rename(directory)


def poison(store):
    with pytest.raises(bitcask.StorageError):
        store.put("b", "2")
        store.bitcask.sync()
    with pytest.raises(bitcask.Poisoned):
        store.bitcask.sync()


# `close` synced first, which failed each time: the store stayed open, and its directory locked.
@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_can_write_no_more_is_closed_and_can_be_opened_again(path, kind):
    store = kind(path)
    store.put("a", "1")
    store.bitcask.sync()
    old = store.bitcask
    with replaced(path):
        poison(store)
        with pytest.raises(bitcask.Poisoned):
            store.close()
    assert old.closed
    store.close()
    with pytest.raises(bitcask.Closed):
        store.get("a")
    with kind(path) as again:
        assert again.bitcask is not old and again.get("a") == "1"
        again.put("b", "3")


def test_a_store_that_can_write_no_more_stays_open_for_others_that_read(path):
    first, second = pybitcask.Bitcask(path), pybitcask.Bitcask(path)
    first.put("a", 1)
    first.bitcask.sync()
    with replaced(path):
        poison(first)
        with pytest.raises(bitcask.Poisoned):
            first.close()
        assert second.get("a") == 1
        with pytest.raises(bitcask.Poisoned):
            second.close()
    bitcask.open(path, create=False).close()


# The first store that could not be closed kept the others open.
def test_close_store_closes_all_although_some_fail(tmp_path):
    stores = [bitcaskpy.open_store(tmp_path / name, sync=True) for name in "abc"]
    for store in stores:
        store.put("a", "1")
    with replaced(tmp_path / "a"), replaced(tmp_path / "b"):
        for store in stores[:2]:
            poison(store)
        with pytest.raises(bitcask.Poisoned):
            bitcaskpy.close_store()
    bitcaskpy.close_store()
    for store in stores:
        with pytest.raises(bitcask.Closed):
            store.get("a")
        bitcask.open(store.base_directory, create=False).close()


# `close` synced first, which a child refuses: the child never gave up its copy of the lock.
@pytest.mark.parametrize("kind", ["bitcaskpy.BitcaskStore", "pybitcask.Bitcask"])
def test_a_child_that_has_closed_a_store_does_not_keep_it_locked(path, kind):
    program = f"""if True:
        import bitcask, bitcaskpy, os, pybitcask, sys
        store = {kind}(sys.argv[1])
        store.put("a", "1")
        closed, closing = os.pipe()
        if os.fork() == 0:
            try:
                store.close()
            except bitcask.Forked:
                store.close()
                os.write(closing, b"1")
            os.close(closing)
            sys.stdin.read()
            os._exit(0)
        os.close(closing)
        os._exit(0 if os.read(closed, 1) == b"1" else 1)
    """
    command = [sys.executable, "-W", "ignore", "-c", program, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as parent:
        # The child lives until its input ends.
        assert parent.wait(60) == 0
        with bitcask.open(path, create=False) as db:
            assert list(db) == [b"a"]
        parent.stdin.close()


def run_all(*functions):
    """Runs functions side by side, and fails if they wait for each other forever."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


class Keeper:
    """Keeps a store in a cycle, so that only a collection releases it."""

    def __init__(self, store):
        self.store, self.itself = store, self


# The thread that imported held a lock while it logged. A handler's thread waited for that lock when
# a collection released a store, and the first thread waited for the handler.
def test_a_store_may_be_collected_in_a_logging_handler_while_another_is_imported(
    tmp_path, monkeypatch, caplog
):
    SegmentManager(str(tmp_path / "old")).append(Entry(1.0, 1, 1, b"a", b"1"))
    handling, telling = threading.Event(), threading.Event()
    keepers = [Keeper(bitcaskpy.BitcaskStore(tmp_path / "kept"))]
    tell = _moved._tell

    class Handler(logging.Handler):
        def emit(self, record):
            if record.msg == "from the program":
                handling.set()
                assert telling.wait(60)
                keepers.clear()
                gc.collect()

    def tell_later(*arguments):
        telling.set()
        tell(*arguments)

    def import_old():
        assert handling.wait(60)
        bitcaskpy.BitcaskStore(tmp_path / "old").close()

    log, handler = logging.getLogger("bitcaskpy"), Handler()
    monkeypatch.setattr(_moved, "_tell", tell_later)
    caplog.set_level(logging.INFO, "bitcaskpy")
    log.addHandler(handler)
    try:
        run_all(import_old, lambda: log.info("from the program"))
    finally:
        log.removeHandler(handler)
    bitcask.open(tmp_path / "kept", create=False).close()


def test_a_store_that_is_collected_while_another_is_opened_is_closed_after_that(tmp_path):
    opening, collected = threading.Event(), threading.Event()
    keepers = [Keeper(bitcaskpy.BitcaskStore(tmp_path))]

    def open_another():
        with _moved._lock:
            opening.set()
            assert collected.wait(60)
        # As each holder of the lock does.
        _moved._release_collected()

    def collect():
        assert opening.wait(60)
        keepers.clear()
        gc.collect()
        with pytest.raises(bitcask.Locked):
            bitcask.open(tmp_path)
        collected.set()

    run_all(open_another, collect)
    bitcask.open(tmp_path, create=False).close()


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, TimeoutError])
def test_a_signal_while_a_collected_store_is_closed_loses_no_share(tmp_path, monkeypatch, raised):
    keepers = [Keeper(bitcaskpy.BitcaskStore(tmp_path / "a"))]
    with _moved._lock:
        # It does not wait for the lock, and leaves the store to the next holder.
        collecting = threading.Thread(target=lambda: (keepers.clear(), gc.collect()))
        collecting.start()
        collecting.join()

    def interrupted(store):
        monkeypatch.undo()
        raise raised

    monkeypatch.setattr(_moved.Store, "close", interrupted)
    with pytest.raises(raised):
        bitcaskpy.BitcaskStore(tmp_path / "b")
    gc.collect()
    for name in ("a", "b"):
        bitcaskpy.BitcaskStore(tmp_path / name).close()
        bitcask.open(tmp_path / name, create=False).close()


def test_what_an_import_has_to_report_is_logged_although_the_opening_fails(tmp_path, caplog):
    SegmentManager(str(tmp_path)).append(Entry(1.0, 1, 1, b"a", b"1"))
    caplog.set_level(logging.INFO, "bitcaskpy")
    with pytest.raises(bitcask.InvalidInput):
        bitcaskpy.BitcaskStore(tmp_path, sync="sometimes")
    assert "imported 1 keys" in caplog.text
    with bitcaskpy.BitcaskStore(tmp_path) as store:
        assert store.get("a") == "1"
