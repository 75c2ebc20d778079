"""Closing a store that others use, and stores that are open when the program ends."""

import os
import signal
import subprocess
import sys
import threading

import pytest

import bitcask
import bitcaskpy
import pybitcask


@pytest.fixture
def ctrl_c():
    """Makes SIGINT raise ``KeyboardInterrupt``, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def wait_until_closed(db):
    while not db.closed:
        pass


def test_closing_waits_for_calls_of_other_threads(db, busy):
    closer = threading.Thread(target=db.close)
    with busy(db):
        closer.start()
        wait_until_closed(db)
        with pytest.raises(bitcask.Closed):
            db.get(b"a")
        with pytest.raises(bitcask.Locked):
            bitcask.open(db.path)
        assert closer.is_alive()
    closer.join()
    bitcask.open(db.path, create=False).close()


# The second call returned at once, while the store was still locked.
def test_everyone_who_closes_a_store_finds_it_closed(db, busy):
    opened = []

    def close_and_open():
        db.close()
        with bitcask.open(db.path) as again:
            opened.append(again)

    first = threading.Thread(target=db.close)
    second = threading.Thread(target=close_and_open)
    with busy(db):
        first.start()
        wait_until_closed(db)
        second.start()
        # Gives a thread that does not wait the time to fail.
        second.join(0.1)
    first.join()
    second.join()
    assert len(opened) == 1


# `close` heard of Ctrl-C only once the calls of other threads had ended.
def test_closing_can_be_interrupted_and_repeated(db, busy, ctrl_c):
    def interrupt():
        wait_until_closed(db)
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    with busy(db):
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            db.close()
        interrupter.join()
        with pytest.raises(bitcask.Locked):
            bitcask.open(db.path)
    db.close()
    bitcask.open(db.path, create=False).close()


# The second `close` did nothing: the store stayed open, and its directory locked.
@pytest.mark.parametrize("kind", [pybitcask.Bitcask, bitcaskpy.BitcaskStore])
def test_closing_a_shared_store_can_be_interrupted_and_repeated(path, busy, ctrl_c, kind):
    store = kind(path)
    db = store.bitcask

    def interrupt():
        wait_until_closed(db)
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    with busy(db):
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            store.close()
        interrupter.join()
        with pytest.raises(bitcask.Locked):
            kind(path)
        with pytest.raises(bitcask.Closed):
            store.get("a")
    store.close()
    store.close()
    with pytest.raises(bitcask.Closed):
        store.bitcask
    with kind(path) as again:
        assert again.get("a") is None


def test_closing_does_not_wait_for_the_function_of_a_transaction(db):
    started, go_on, raised = threading.Event(), threading.Event(), []

    def slow(tx):
        tx[b"a"] = b"1"
        started.set()
        assert go_on.wait(60)

    def run():
        try:
            db.transaction(slow)
        except bitcask.Closed as error:
            raised.append(error)

    worker = threading.Thread(target=run)
    worker.start()
    assert started.wait(60)
    db.close()
    with bitcask.open(db.path, create=False) as again:
        go_on.set()
        worker.join()
        assert len(raised) == 1 and not again


def run(program, *arguments):
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)


# The program ended only once the thread had left its transaction, which was never.
def test_a_program_ends_although_a_daemon_waits_within_a_transaction(path):
    program = """if True:
        import bitcask, queue, sys, threading
        db, work, started = bitcask.open(sys.argv[1]), queue.Queue(), threading.Event()
        db[b"a"] = b"1"
        job = lambda tx: (started.set(), tx.put(b"job", work.get()))
        threading.Thread(target=db.transaction, args=(job,), daemon=True).start()
        started.wait()
    """
    run(program, path)
    with bitcask.open(path, create=False) as db:
        assert db == {b"a": b"1"}


# The store was closed before the shelf wrote what it held in memory.
@pytest.mark.parametrize("writeback", [True, False])
def test_a_shelf_is_closed_when_the_program_ends(path, writeback):
    program = """if True:
        import bitcask, shelve, sys
        shelf = shelve.Shelf(bitcask.open(sys.argv[1]), writeback=sys.argv[2] == "True")
        other = shelve.Shelf({}, writeback=True)
        shelf["list"] = [1]
        shelf["list"].append(2)
        sys.exit(0)
    """
    assert run(program, path, str(writeback)).stderr == ""
    import shelve

    with shelve.Shelf(bitcask.open(path)) as shelf:
        assert shelf["list"] == ([1, 2] if writeback else [1])


def test_an_object_that_a_shelf_cannot_write_at_the_end_is_shown(path):
    program = """if True:
        import bitcask, shelve, sys
        shelf = shelve.Shelf(bitcask.open(sys.argv[1]), writeback=True)
        bitcask.open(sys.argv[1] + "2")[b"a"] = b"1"
        shelf["list"] = [1]
        shelf["list"].append(lambda: 1)
    """
    assert "pickle" in run(program, path).stderr
    bitcask.open(path, create=False).close()


# No store was closed, because the program has a module of this name.
def test_a_module_of_the_program_may_be_called_shelve(path, tmp_path):
    (tmp_path / "shelve.py").write_text("books = []\n")
    program = """if True:
        import sys
        sys.path.insert(0, sys.argv[2])
        import bitcask, pathlib, shelve
        db = bitcask.open(sys.argv[1])
        db[b"a"] = b"1"
        # Runs after the store's own function.
        import atexit
        atexit._run_exitfuncs()
        assert db.closed
    """
    assert run(program, path, tmp_path).stderr == ""
