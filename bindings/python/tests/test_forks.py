"""Processes that were forked while a store was open. Nothing of the parent's may hang there."""

import os
import subprocess
import sys
import threading

import pytest

import bitcask
import bitcaskpy
import pybitcask
from bitcask import _moved

from conftest import in_child


def forked(*calls):
    """Calls functions. Returns how many of them raise `Forked`."""
    count = 0
    for call in calls:
        try:
            call()
        except bitcask.Forked:
            count += 1
    return count


def test_a_store_belongs_to_the_process_that_opened_it(db):
    db[b"a"] = b"1"
    calls = [lambda: db.get(b"a"), lambda: db.put(b"b", b""), lambda: list(db), db.close]
    assert in_child(lambda: forked(*calls)) == 4
    db[b"b"] = b"2"
    assert list(db) == [b"a", b"b"]


# A child that closed a store waited for calls of threads that it does not have.
def test_a_child_does_not_wait_for_a_call_of_its_parent(db, busy):
    with busy(db):
        assert in_child(lambda: forked(lambda: db.get(b"a"), db.close, db.close)) == 2


def test_a_child_ends_although_its_parent_is_inside_a_call(path):
    # The child of a test would run the end of the tests. So a program forks, and both exit.
    program = """if True:
        import bitcask, os, sys, threading
        db = bitcask.open(sys.argv[1])
        pipes = [os.path.join(sys.argv[2], f"segment_{number}.log") for number in range(2)]
        for pipe in pipes:
            os.mkfifo(pipe)
        thread = threading.Thread(target=db.import_from, args=("bitcaskpy", sys.argv[2]))
        thread.start()
        os.close(os.open(pipes[0], os.O_WRONLY))
        if (child := os.fork()) == 0:
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        os._exit(0)
    """
    pipes = path.with_name("pipes")
    pipes.mkdir()
    arguments = [sys.executable, "-W", "ignore", "-c", program, path, pipes]
    subprocess.run(arguments, check=True, timeout=60)


def test_an_iterator_is_refused_in_a_child(db):
    db.update({b"a": b"1", b"b": b"2"})
    items, keys = iter(db.items()), db.prefix_keys(b"")
    next(items)
    assert in_child(lambda: forked(lambda: next(items), lambda: next(keys))) == 2
    assert next(items) == (b"b", b"2")


# The child waited for the lock of an iterator that a thread of its parent was stepping.
def test_an_iterator_that_another_thread_steps_is_refused_in_a_child(db):
    db.update({b"%05d" % number: bytes(10_000) for number in range(2000)})
    items, stop = [iter(db.items())], threading.Event()

    def step():
        while not stop.is_set():
            if next(items[0], None) is None:
                items[0] = iter(db.items())

    worker = threading.Thread(target=step)
    worker.start()
    try:
        for _ in range(50):
            assert in_child(lambda: forked(lambda: next(items[0]))) == 1
    finally:
        stop.set()
        worker.join()


def test_a_transaction_is_refused_in_a_child(db):
    db[b"a"] = b"1"

    def run(tx):
        items = iter(tx.items())
        refused = in_child(lambda: forked(lambda: tx.get(b"a"), lambda: next(items), lambda: len(tx)))
        tx[b"b"] = b"2"
        return refused

    assert db.transaction(run) == 3
    assert db[b"b"] == b"2"


def test_a_function_that_forks_commits_only_in_the_parent(db):
    def run(tx):
        tx[b"a"] = b"1"
        return in_child(lambda: forked(lambda: tx._commit(db, None), lambda: db.transaction(run)))

    assert db.transaction(run) == 2
    assert db == {b"a": b"1"}


# A thread that imports or closes holds the lock of the module, and a child found it locked.
def test_a_child_opens_another_directory_while_its_parent_opens_one(tmp_path):
    locked, go_on = threading.Event(), threading.Event()

    def hold():
        with _moved._lock:
            locked.set()
            assert go_on.wait(60)

    def open_another():
        with bitcaskpy.open_store(tmp_path) as store:
            store.put("a", "1")
            return int(store.get("a"))

    worker = threading.Thread(target=hold)
    worker.start()
    assert locked.wait(60)
    try:
        assert in_child(open_another) == 1
    finally:
        go_on.set()
        worker.join()


@pytest.mark.parametrize("opened", [bitcaskpy.BitcaskStore, pybitcask.Bitcask])
def test_stores_of_the_older_systems_are_refused_in_a_child(tmp_path, opened):
    with opened(tmp_path) as store:
        store.put("a", "1")
        assert in_child(lambda: forked(lambda: store.get("a"), store.close)) == 2
        assert store.get("a") == "1"


# A child waited for the scheduler's lock, which the parent's thread may hold.
def test_a_child_closes_a_store_that_its_parent_compacts(tmp_path):
    with pybitcask.Bitcask(tmp_path) as store:
        scheduler = store.start_auto_compaction(1e-5)

        def close():
            assert not scheduler.is_running and not store.auto_compaction_running
            return forked(store.close)

        for _ in range(50):
            assert in_child(close) == 1
        assert scheduler.is_running
