"""Transactions whose function does more than read, compute and write."""

import threading

import pytest

import bitcask

# The crash that this found needs another package, which switches stacks.
greenlet = pytest.importorskip("greenlet")


# A function that was suspended took the transaction with its stack. Whoever used it then read and
# wrote the stack of another function, and the process ended.
def test_a_greenlet_is_suspended_within_a_transaction(db):
    main, kept = greenlet.getcurrent(), []

    def run(tx):
        kept.append(tx)
        tx[b"a"] = b"1"
        main.switch()
        return tx[b"a"], tx[b"b"]

    def deep(depth):
        if depth:
            return deep(depth - 1)
        for number in range(1000):
            kept[0][b"%03d" % number] = bytes(100)
        kept[0][b"b"] = b"2"
        return kept[0][b"a"]

    suspended = greenlet.greenlet(lambda: db.transaction(run))
    suspended.switch()
    assert deep(20) == b"1" and not db
    assert suspended.switch() == (b"1", b"2")
    assert len(db) == 1002


def test_greenlets_of_a_thread_take_turns_within_transactions(db):
    main = greenlet.getcurrent()
    db[b"count"] = b"0"

    def add(tx):
        count = int(tx[b"count"])
        main.switch()
        tx[b"count"] = b"%d" % (count + 1)
        main.switch()

    greenlets = [greenlet.greenlet(lambda: db.transaction(add)) for _ in range(5)]
    turn = 0
    while not all(each.dead for each in greenlets):
        for each in greenlets[turn % 2 :: 2] + greenlets[(turn + 1) % 2 :: 2]:
            if not each.dead:
                each.switch()
        db[b"turn"] = b"%d" % turn
        turn += 1
    assert db[b"count"] == b"5"


def test_a_greenlet_that_is_dropped_within_a_transaction_writes_nothing(db):
    main = greenlet.getcurrent()

    def run(tx):
        tx[b"a"] = b"1"
        main.switch()

    suspended = greenlet.greenlet(lambda: db.transaction(run))
    suspended.switch()
    assert db.stats()["snapshots"] == 1
    del suspended
    assert db.stats()["snapshots"] == 0 and not db


def test_any_thread_can_use_a_transaction_until_it_has_ended(db, tmp_path):
    kept = []

    def in_thread(function):
        results = []
        thread = threading.Thread(target=lambda: results.append(function()))
        thread.start()
        thread.join()
        return results[0]

    def run(tx):
        kept.append(tx)
        tx[b"a"] = b"1"
        return in_thread(lambda: tx[b"a"])

    assert db.transaction(run) == b"1"
    for use in (lambda: kept[0].get(b"a"), lambda: kept[0].put(b"a", b""), lambda: list(kept[0])):
        with pytest.raises(bitcask.InvalidInput, match="has ended"):
            use()

    with bitcask.open(tmp_path / "other") as other:

        def outer(tx):
            tx[b"outer"] = other.transaction(lambda inner: inner.setdefault(b"inner", tx[b"a"]))

        db.transaction(outer)
        assert db[b"outer"] == other[b"inner"] == b"1"


# How far an iterator had read ahead decided what it showed.
@pytest.mark.parametrize("reverse", [False, True])
def test_an_iterator_shows_what_its_transaction_writes_meanwhile(db, reverse):
    keys = [b"%03d" % number for number in range(100)]
    db.update(dict.fromkeys(keys, b"old"))
    order = keys[::-1] if reverse else keys

    def change_the_next(tx):
        shown = []
        for key, value in tx.range(reverse=reverse):
            shown.append((key, value))
            place = order.index(key) + 1
            if place < len(order):
                tx[order[place]] = b"new"
        return shown

    expected = [(order[0], b"old")] + [(key, b"new") for key in order[1:]]
    assert db.transaction(change_the_next) == expected

    def delete_the_next(tx):
        shown = []
        for key in tx.range_keys(reverse=reverse):
            shown.append(key)
            for other in order[order.index(key) + 1 :][:1]:
                del tx[other]
        return shown

    assert db.transaction(delete_the_next) == order[::2]


def test_an_iterator_shows_keys_that_are_added_behind_it(db):
    db.update({b"a": b"", b"b": b"", b"c": b""})

    def run(tx):
        keys = iter(tx)
        shown = [next(keys), next(keys)]
        tx[b"aa"] = tx[b"bb"] = tx[b"d"] = b""
        shown.append(next(keys))
        tx.rollback()
        tx[b"cc"] = b""
        shown += keys
        tx[b"e"] = b""
        # It has ended.
        return shown, next(keys, None)

    assert db.transaction(run) == ([b"a", b"b", b"bb", b"c", b"cc"], None)


def test_a_transaction_whose_store_is_closed_writes_nothing(path):
    db = bitcask.open(path)
    db[b"a"] = b"1"

    def run(tx):
        tx[b"b"] = b"2"
        db.close()
        assert tx[b"a"] == b"1"

    with pytest.raises(bitcask.Closed):
        db.transaction(run)
    with bitcask.open(path) as db:
        assert db == {b"a": b"1"}
