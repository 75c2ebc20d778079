"""Opening, closing, options, errors, and what else a store can do."""

import errno
import gc
import os
import pickle
import shelve
import subprocess
import sys
import warnings

import pytest

import bitcask


def test_a_closed_store_refuses_every_call(path):
    with bitcask.open(path) as db:
        assert not db.closed and repr(db).endswith("open>")
    assert db.closed and "closed" in repr(db)
    calls = [
        lambda: db[b"a"],
        lambda: db.get(b"a"),
        lambda: db.put(b"a", b""),
        lambda: b"a" in db,
        lambda: len(db),
        lambda: bool(db),
        lambda: iter(db),
        lambda: db.snapshot(),
        lambda: db.sync(),
        lambda: db.write(bitcask.Batch()),
        lambda: db.transaction(lambda tx: None),
        lambda: db.stats(),
    ]
    for call in calls:
        with pytest.raises(bitcask.Closed, match="the store is closed"):
            call()
    db.close()


def test_a_store_that_is_forgotten_is_closed_with_a_warning(path):
    db = bitcask.open(path)
    db[b"a"] = b"1"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del db
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    with bitcask.open(path) as db:
        assert db[b"a"] == b"1"


def test_a_store_is_closed_when_the_program_ends(path):
    program = "import bitcask, sys; db = bitcask.open(sys.argv[1]); db[b'a'] = b'1'"
    subprocess.run([sys.executable, "-c", program, path], check=True)
    with bitcask.open(path, create=False) as db:
        assert db == {b"a": b"1"}


def test_a_second_opening_is_refused(db):
    with pytest.raises(bitcask.Locked, match="is locked by") as raised:
        bitcask.open(db.path)
    assert isinstance(raised.value, OSError) and isinstance(raised.value, bitcask.Error)


def test_a_store_that_is_absent_can_be_refused(path):
    for options in ({"create": False}, {"read_only": True}):
        with pytest.raises(bitcask.NotFound, match="there is no store"):
            bitcask.open(path, **options)
    with pytest.raises(FileNotFoundError):
        bitcask.open(path, create=False)
    assert not path.exists()


def test_a_read_only_store_follows_its_writer(db):
    db[b"a"] = b"1"
    with bitcask.open(db.path, read_only=True) as reader:
        assert reader.read_only and dict(reader) == {b"a": b"1"}
        db[b"b"] = b"2"
        reader.refresh()
        assert list(reader) == [b"a", b"b"]
        with reader.snapshot() as snapshot:
            assert snapshot[b"b"] == b"2"
        for call in (
            lambda: reader.put(b"c", b""),
            lambda: reader.pop(b"a"),
            lambda: reader.clear(),
            lambda: reader.merge(),
            lambda: reader.backup(db.path),
        ):
            with pytest.raises(bitcask.ReadOnlyError, match="opened read-only"):
                call()
        reader.sync()
    assert db.refresh() is False


@pytest.mark.parametrize("sync", ["always", "never", 0.25, 5])
def test_every_sync_policy(path, sync):
    with bitcask.open(path, sync=sync) as db:
        db[b"a"] = b"1"
        if sync == "always":
            assert db.stats()["syncs"] > 0
        syncs = db.stats()["syncs"]
        db.put(b"b", b"2", durable=True)
        assert db.stats()["syncs"] > syncs


# `True` was read as one second, so that a program which asked for durable writes had none.
@pytest.mark.parametrize("flag", [True, False])
def test_a_flag_is_no_time(path, flag):
    with pytest.raises(bitcask.InvalidInput, match=f'`sync` is {flag}.*"always"'):
        bitcask.open(path, sync=flag)
    with pytest.raises(bitcask.InvalidInput, match=f"`default_ttl` is {flag}"):
        bitcask.open(path, default_ttl=flag)
    with bitcask.open(path) as db:
        for options in ({"ttl": flag}, {"expires_at": flag}):
            (name,) = options
            with pytest.raises(bitcask.InvalidInput, match=f"`{name}` is {flag}"):
                db.put(b"a", b"1", **options)
        assert not db


@pytest.mark.parametrize(
    "options",
    [
        {"sync": "sometimes"},
        {"sync": 0},
        {"sync": -1},
        {"merge": "often"},
        {"compression": "zip"},
        {"segment_size": 1},
        {"key_size_limit": 1 << 20},
    ],
)
def test_an_option_that_is_wrong_is_named(path, options):
    (name,) = options
    with pytest.raises(bitcask.InvalidInput, match=f"`{name}"):
        bitcask.open(path, **options)


# The messages told users of Python to use names of Rust.
def test_messages_name_what_python_has(path):
    with pytest.raises(bitcask.NotFound, match="`bitcask.open` creates one unless") as absent:
        bitcask.open(path, create=False)
    with pytest.raises(bitcask.InvalidInput, match='`sync` is 0.*use `sync="always"`') as short:
        bitcask.open(path, sync=0)
    assert "::" not in f"{absent.value} {short.value}"


def test_an_option_that_does_not_exist_is_refused(path):
    with pytest.raises(TypeError):
        bitcask.open(path, speed="high")
    with pytest.raises(TypeError, match="there is no option `speed`"):
        bitcask.Store(path, speed="high")


def test_sizes_have_limits(path):
    with bitcask.open(path, key_size_limit=3, value_size_limit=5) as db:
        db[b"abc"] = b"12345"
        with pytest.raises(ValueError, match="the key has 4 bytes, the limit is 3"):
            db[b"abcd"] = b""
        with pytest.raises(bitcask.InvalidInput, match="the value has 6 bytes"):
            db[b"abc"] = b"123456"


def test_segments_modes_and_compression(path):
    options = {"segment_size": 4096, "dir_mode": 0o700, "file_mode": 0o600, "compression": "lz4"}
    with bitcask.open(path, verify_reads=False, merge="manual", **options) as db:
        for number in range(100):
            db[b"%d" % number] = os.urandom(200)
        assert db.stats()["segments"] > 3
        db[b"compressed"] = b"a" * 100_000
        assert db.counters()["bytes_written"] < 100_000
        assert db[b"compressed"] == b"a" * 100_000
    assert path.stat().st_mode & 0o777 == 0o700


def test_damage_is_an_error_that_names_the_file(path):
    with bitcask.open(path) as db:
        db[b"key"] = b"value" * 100
    (log,) = (file for file in path.glob("*.log") if b"value" in file.read_bytes())
    bytes = bytearray(log.read_bytes())
    bytes[bytes.index(b"valuevalue")] ^= 1
    log.write_bytes(bytes)
    with pytest.raises(bitcask.Corrupt, match=log.name):
        with bitcask.open(path) as db:
            db[b"key"]


def test_an_error_of_the_system_has_its_code(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(bitcask.StorageError):
        bitcask.open(file)
    with pytest.raises(OSError) as raised:
        bitcask.open(tmp_path / ("n" * 300))
    assert raised.value.errno == errno.ENAMETOOLONG
    assert "n" * 300 in str(raised.value)


# A program that tests for a full disk by its code took the wrong branch.
def test_errors_with_a_class_of_their_own_have_their_code(db, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    cases = [
        (lambda: bitcask.open(tmp_path / "absent", create=False), bitcask.NotFound, errno.ENOENT),
        (lambda: bitcask.open(db.path), bitcask.Locked, errno.EWOULDBLOCK),
        (lambda: bitcask.open(file), bitcask.StorageError, errno.ENOTDIR),
    ]
    for call, kind, code in cases:
        with pytest.raises(kind) as raised:
            call()
        assert raised.value.errno == code
        copy = pickle.loads(pickle.dumps(raised.value))
        assert (type(copy), copy.errno, str(copy)) == (kind, code, str(raised.value))


@pytest.mark.parametrize("verify_reads", [True, False])
def test_values_of_any_size_are_read_in_every_way(path, verify_reads):
    sizes = (0, 1, 4095, 4096, 4097, 12_345, 1 << 20)
    model = {b"%07d" % size: os.urandom(size) for size in sizes}
    with bitcask.open(path) as db:
        db.update(model)
    with bitcask.open(path, verify_reads=verify_reads) as db, db.snapshot() as snapshot:
        for reader in (db, snapshot):
            assert dict(reader.items()) == model and list(reader.values()) == list(model.values())
            assert reader.get_many(model) == list(model.values())
            assert all(reader[key] == reader.get(key) == value for key, value in model.items())
        assert db.transaction(lambda tx: (dict(tx.items()), [tx[key] for key in model])) == (
            model,
            list(model.values()),
        )


def test_merging_frees_space(db):
    for number in range(100):
        db[b"key"] = b"%d" % number * 1000
    before = db.stats()
    report = db.merge(force=True)
    assert report["live_entries"] == 1 and report["size_in"] > report["size_out"]
    assert db.stats()["log_size"] < before["log_size"]
    assert db[b"key"] == b"99" * 1000


def test_figures_are_dictionaries(db):
    db[b"a"] = b"1"
    db.get(b"a")
    db.get(b"b")
    counters = db.counters()
    assert (counters["puts"], counters["hits"], counters["misses"]) == (1, 1, 1)
    stats = db.stats()
    assert stats["appends"] == 1 and 0 <= stats["dead_ratio"] <= 1


def test_a_backup_is_a_store(db, tmp_path):
    db[b"a"] = b"1"
    report = db.backup(tmp_path / "copy")
    db[b"a"] = b"2"
    assert report["segments"] >= 1
    with bitcask.open(tmp_path / "copy", create=False) as copy:
        assert copy == {b"a": b"1"}
    with pytest.raises(bitcask.InvalidInput, match="cannot copy the store"):
        db.backup(tmp_path / "copy")


def test_a_shelf_keeps_objects(path):
    objects = {"list": [1, 2], "text": "\u00fc", "none": None, "\u00fc": {"a": 1.5}}
    with shelve.Shelf(bitcask.open(path)) as shelf:
        shelf.update(objects)
        assert shelf["list"] == [1, 2] and "text" in shelf and "other" not in shelf
        del shelf["none"]
        shelf.sync()
    del objects["none"]
    with shelve.Shelf(bitcask.open(path), writeback=True) as shelf:
        assert dict(shelf) == objects and len(shelf) == 3
        shelf["list"].append(3)
        with pytest.raises(KeyError):
            shelf["none"]
    with shelve.Shelf(bitcask.open(path, read_only=True)) as shelf:
        assert shelf["list"] == [1, 2, 3]
    with pytest.raises(ValueError):
        shelf["list"]


def test_exceptions_have_a_hierarchy():
    for name in bitcask.__all__:
        member = getattr(bitcask, name)
        if isinstance(member, type) and issubclass(member, Exception):
            assert issubclass(member, bitcask.Error), name
            assert member.__module__ == "bitcask"
    for name in ("Corrupt", "Locked", "NoSpace", "NotFound", "Poisoned", "Unsupported"):
        assert issubclass(getattr(bitcask, name), bitcask.StorageError)
    assert issubclass(bitcask.StorageError, OSError)
    assert issubclass(bitcask.InvalidInput, ValueError) and issubclass(bitcask.Closed, ValueError)
