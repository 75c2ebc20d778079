"""Batches, transactions, snapshots and times to live."""

import math
import threading
from datetime import datetime, timedelta, timezone

import pytest

import bitcask

PAST = 1_000_000_000
HOUR = 3600


def test_a_batch_is_written_at_the_end_of_its_block(db):
    db[b"old"] = b""
    with db.batch() as batch:
        batch.put(b"a", b"1")
        batch[b"b"] = b"2"
        del batch[b"old"]
        assert len(batch) == 3 and batch.size > 0
        assert b"a" not in db
    assert db == {b"a": b"1", b"b": b"2"}


def test_a_batch_whose_block_raises_is_not_written(db):
    with pytest.raises(ZeroDivisionError):
        with db.batch(durable=True) as batch:
            batch[b"a"] = b"1"
            1 / 0
    assert not db


def test_a_batch_can_be_written_again(db):
    batch = bitcask.Batch()
    batch.put(b"a", b"1")
    db.write(batch)
    del db[b"a"]
    db.write(batch, durable=True)
    assert db == {b"a": b"1"}
    batch.clear()
    assert len(batch) == 0
    db.write(batch)


def test_a_transaction_returns_what_its_function_returns(db):
    db[b"a"] = b"10"

    def move(tx):
        tx[b"b"] = tx[b"a"]
        del tx[b"a"]
        assert b"a" not in tx and tx[b"b"] == b"10"
        return "moved"

    assert db.transaction(move) == "moved"
    assert db == {b"b": b"10"}


def test_an_exception_discards_a_transaction(db):
    def fail(tx):
        tx[b"a"] = b"1"
        raise LookupError("why")

    with pytest.raises(LookupError, match="why"):
        db.transaction(fail)
    assert not db


def test_a_transaction_that_is_rolled_back_writes_nothing(db):
    def give_up(tx):
        tx[b"a"] = b"1"
        tx.rollback()
        return tx.get(b"a")

    assert db.transaction(give_up) is None
    assert not db


def test_a_transaction_runs_again_after_a_conflict(db):
    db[b"count"] = b"0"
    seen = []

    def add(tx):
        count = int(tx[b"count"])
        seen.append(count)
        if len(seen) < 3:
            db[b"count"] = b"%d" % (count + 10)
        tx[b"count"] = b"%d" % (count + 1)

    db.transaction(add)
    assert seen == [0, 10, 20]
    assert db[b"count"] == b"21"


def test_a_transaction_gives_up_after_its_attempts(db):
    calls = []

    def add(tx):
        calls.append(tx.get(b"count"))
        db[b"count"] = b"%d" % len(calls)
        tx[b"other"] = b""

    with pytest.raises(bitcask.Conflict, match="4 times"):
        db.transaction(add, attempts=4)
    assert len(calls) == 4 and b"other" not in db
    with pytest.raises(bitcask.InvalidInput):
        db.transaction(add, attempts=0)


def test_a_range_that_changes_is_a_conflict(db):
    db.update({b"job/1": b"", b"job/2": b""})
    runs = []

    def count(tx):
        runs.append(sum(1 for _ in tx.prefix(b"job/")))
        if len(runs) == 1:
            db[b"job/0"] = b""
        tx[b"count"] = b"%d" % runs[-1]

    db.transaction(count)
    assert runs == [2, 3] and db[b"count"] == b"3"


def test_what_an_iteration_has_not_reached_is_no_conflict(db):
    db.update({b"job/%03d" % number: b"" for number in range(200)})
    runs = []

    def take(tx):
        runs.append(1)
        key, _ = next(tx.prefix(b"job/"))
        del db[b"job/150"]
        db[b"job/150"] = b"changed"
        tx.delete(key)

    db.transaction(take)
    assert len(runs) == 1 and len(db) == 199


@pytest.mark.parametrize("reverse", [False, True])
def test_a_transaction_iterates_over_its_own_writes(db, reverse):
    model = {b"%03d" % number: b"old" for number in range(0, 300, 2)}
    db.update(model)

    def run(tx):
        for number in range(0, 300, 3):
            tx[b"%03d" % number] = model[b"%03d" % number] = b"new"
        for number in range(0, 300, 10):
            tx.delete(b"%03d" % number)
            model.pop(b"%03d" % number, None)
        expected = sorted(model.items(), reverse=reverse)
        assert list(tx.range(reverse=reverse)) == expected
        within = [item for item in expected if item[0].startswith(b"1")]
        assert list(tx.prefix(b"1", reverse=reverse)) == within
        assert list(tx.prefix_keys(b"1", reverse=reverse)) == [key for key, _ in within]
        assert len(tx) == len(model) and tx == model

    db.transaction(run)
    assert db == model


def test_prefixes_of_the_highest_bytes(db):
    db.update({key: b"" for key in (b"\xfe", b"\xff", b"\xff\xff", b"\xff\xff\xff", b"a\xff", b"b")})
    found = db.transaction(
        lambda tx: [list(tx.prefix_keys(prefix)) for prefix in (b"\xff\xff", b"a\xff", b"")]
    )
    assert found == [[b"\xff\xff", b"\xff\xff\xff"], [b"a\xff"], list(db)]


def test_a_transaction_is_a_mapping(db):
    db.update({b"a": b"1", b"b": b"2"})

    def run(tx):
        assert tx.pop(b"a") == b"1"
        assert tx.setdefault(b"c", b"3") == b"3"
        assert (tx.first(), tx.last()) == ((b"b", b"2"), (b"c", b"3"))
        tx.clear()
        assert not tx
        tx.update({b"z": b"26"})

    db.transaction(run)
    assert db == {b"z": b"26"}


def test_threads_that_count_lose_nothing(db):
    db[b"count"] = b"0"

    def add(tx):
        tx[b"count"] = b"%d" % (int(tx[b"count"]) + 1)

    def work():
        for _ in range(200):
            db.transaction(add, attempts=100_000)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db[b"count"] == b"800"


def test_threads_share_a_store(db):
    barrier = threading.Barrier(4)

    def work(number):
        barrier.wait()
        for round in range(500):
            key = b"%d/%d" % (number, round)
            db[key] = key
            assert db[key] == key
            if round % 50 == 0:
                assert all(key == value for key, value in db.items())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(db) == 2000 and all(key == value for key, value in db.items())


def test_a_batch_can_be_written_and_changed_again(db):
    batch = bitcask.Batch()
    for number in range(3):
        batch[b"%d" % number] = b""
        db.write(batch)
        assert len(batch) == len(db) == number + 1
    batch.clear()
    del batch[b"0"]
    db.write(batch)
    assert list(db) == [b"1", b"2"] and len(batch) == 1


def test_a_snapshot_is_of_one_moment(db):
    db.update({b"a": b"1", b"b": b"2"})
    with db.snapshot() as snapshot:
        db[b"a"] = b"new"
        del db[b"b"]
        db.merge(force=True)
        assert snapshot == {b"a": b"1", b"b": b"2"}
        assert (snapshot[b"a"], snapshot.get(b"b"), snapshot.get(b"c", 3)) == (b"1", b"2", 3)
        assert snapshot.get_many([b"b", b"c"]) == [b"2", None]
        assert list(reversed(snapshot)) == [b"b", b"a"]
        assert list(snapshot.prefix(b"a")) == [(b"a", b"1")]
        assert len(snapshot) == 2 and snapshot and b"b" in snapshot
        with pytest.raises(KeyError):
            snapshot[b"c"]
        assert db.stats()["snapshots"] == 1
    assert snapshot.closed and db.stats()["snapshots"] == 0
    with pytest.raises(bitcask.Closed):
        snapshot[b"a"]
    snapshot.close()


def test_a_snapshot_and_an_iterator_outlive_the_store(path):
    db = bitcask.open(path)
    db[b"a"] = b"1"
    snapshot, items = db.snapshot(), iter(db.items())
    db.close()
    assert snapshot[b"a"] == b"1" and list(items) == [(b"a", b"1")]
    snapshot.close()


def test_a_key_whose_time_has_come_is_absent(db):
    db.put(b"zero", b"", ttl=0)
    db.put(b"past", b"", expires_at=PAST)
    db.put(b"before", b"", expires_at=datetime(1960, 1, 1, tzinfo=timezone.utc))
    assert list(db) == [] and not db
    assert db.get(b"zero") is None and b"past" not in db
    with pytest.raises(KeyError):
        db.ttl(b"past")


def test_a_time_to_live_can_be_read_changed_and_removed(db):
    db.put(b"a", b"1", ttl=HOUR)
    db.put(b"b", b"2", ttl=timedelta(days=1))
    db.put(b"c", b"3", expires_at=4e9)
    db[b"d"] = b"4"
    assert 0 < db.ttl(b"a") <= HOUR < db.ttl(b"b") <= 24 * HOUR < db.ttl(b"c")
    assert db.ttl(b"d") is None
    assert db.expire(b"d", HOUR) is True
    assert 0 < db.ttl(b"d") <= HOUR
    assert db.persist(b"d") is True and db.ttl(b"d") is None
    assert db.persist(b"d") is True
    assert db.expire(b"a", 0) is True and b"a" not in db
    assert db.expire(b"a", HOUR) is False and db.persist(b"a") is False


def test_a_put_can_keep_the_time_to_live(db):
    db.put(b"a", b"1", ttl=HOUR)
    db.put(b"a", b"2", keep_ttl=True)
    assert db.ttl(b"a") is not None and db[b"a"] == b"2"
    db.put(b"a", b"3")
    assert db.ttl(b"a") is None


def test_times_to_live_in_batches_and_transactions(db):
    with db.batch() as batch:
        batch.put(b"a", b"1", ttl=HOUR)
        batch.put(b"b", b"2", expires_at=PAST)

    def run(tx):
        tx.put(b"c", b"3", ttl=HOUR)
        assert tx.ttl(b"c") is not None and tx.ttl(b"a") is not None
        with pytest.raises(KeyError):
            tx.ttl(b"b")

    db.transaction(run)
    assert list(db) == [b"a", b"c"] and db.ttl(b"c") <= HOUR


def test_a_store_can_have_a_default_time_to_live(path):
    with bitcask.open(path, default_ttl=timedelta(hours=1)) as db:
        db[b"a"] = b"1"
        db.put(b"b", b"2", ttl=math.inf)
        assert db.ttl(b"a") <= HOUR and db.ttl(b"b") is None


@pytest.mark.parametrize("options", [{"ttl": -1}, {"ttl": math.nan}, {"expires_at": math.nan}])
def test_a_time_that_is_none_is_refused(db, options):
    with pytest.raises(ValueError):
        db.put(b"a", b"1", **options)
    with pytest.raises(bitcask.InvalidInput, match="not both"):
        db.put(b"a", b"1", ttl=1, expires_at=PAST)
    assert not db
