"""A store is a mapping of bytes to bytes, in order."""

from collections.abc import Mapping, MutableMapping

import pytest

import bitcask


def test_a_store_is_a_mutable_mapping_and_a_snapshot_is_a_mapping(db):
    assert isinstance(db, MutableMapping)
    with db.snapshot() as snapshot:
        assert isinstance(snapshot, Mapping)
        assert not isinstance(snapshot, MutableMapping)


def test_what_is_set_is_read_until_it_is_deleted(db):
    db[b"key"] = b"value"
    db[b""] = b""
    assert (db[b"key"], db[b""]) == (b"value", b"")
    assert b"key" in db and b"other" not in db
    assert len(db) == 2 and db
    del db[b"key"]
    assert b"key" not in db
    with pytest.raises(KeyError) as raised:
        db[b"key"]
    assert raised.value.args == (b"key",)
    with pytest.raises(KeyError):
        del db[b"key"]
    assert db.delete(b"") is True
    assert db.delete(b"") is False
    assert not db


def test_get_has_a_default(db):
    db[b"key"] = b"value"
    assert db.get(b"key") == b"value"
    assert db.get(b"other") is None
    assert db.get(b"other", 7) == 7
    assert db.get(b"other", default=b"") == b""
    assert db.get_many([b"key", b"other", bytearray(b"key")]) == [b"value", None, b"value"]
    assert db.get_many(iter(())) == []


def test_every_byte_string_is_a_key_and_a_value(db):
    model = {bytes([byte]): bytes([byte, 0, 255]) for byte in range(256)}
    model[bytes(range(256)) * 200] = b"\0" * (1 << 20)
    db.update(model)
    assert db == model
    assert dict(db) == model


def test_other_buffers_are_copied(db):
    key, value = bytearray(b"key"), bytearray(b"value")
    db[key] = memoryview(value)[1:3]
    key[0], value[1] = 0, 0
    assert list(db.items()) == [(b"key", b"al")]
    assert memoryview(b"xkeyx")[1:-1] in db


@pytest.mark.parametrize("wrong", ["key", 7, None, ["k"]])
def test_what_is_not_bytes_is_refused(db, wrong):
    calls = [
        lambda: db.__setitem__(wrong, b""),
        lambda: db.__setitem__(b"key", wrong),
        lambda: db[wrong],
        lambda: db.get(wrong),
        lambda: wrong in db,
        lambda: db.delete(wrong),
        lambda: db.prefix(wrong),
        lambda: db.get_many([wrong]),
        lambda: bitcask.Batch().put(wrong, b""),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="has to be bytes, not"):
            call()
    assert not db


def test_the_refusal_of_text_says_what_to_do(db):
    with pytest.raises(TypeError, match=r"a key has to be bytes, not str; .*encode"):
        db["key"] = b"value"


def test_iteration_is_in_the_order_of_bytes(db):
    keys = [b"", b"\0", b"a", b"a\0", b"aa", b"b", b"\xff", b"\xff\xff"]
    db.update({key: key[::-1] for key in reversed(keys)})
    assert list(db) == list(db.keys()) == keys
    assert list(reversed(db)) == list(reversed(db.keys())) == keys[::-1]
    assert list(db.values()) == [key[::-1] for key in keys]
    assert list(reversed(db.values())) == [key[::-1] for key in keys[::-1]]
    assert list(reversed(db.items())) == [(key, key[::-1]) for key in keys[::-1]]
    assert (db.first(), db.last()) == ((b"", b""), (b"\xff\xff", b"\xff\xff"))


def test_ranges_and_prefixes(db):
    db.update({key: b"v" + key for key in (b"a", b"b", b"ba", b"bb", b"c")})
    keys = lambda items: [key for key, _ in items]
    assert keys(db.range(b"b")) == [b"b", b"ba", b"bb", b"c"]
    assert keys(db.range(stop=b"b")) == [b"a"]
    assert keys(db.range(b"b", b"bb")) == [b"b", b"ba"]
    assert keys(db.range(b"b", b"bb", include_start=False, include_stop=True)) == [b"ba", b"bb"]
    assert keys(db.range(b"b", b"c", reverse=True)) == [b"bb", b"ba", b"b"]
    assert list(db.range(b"c", b"b")) == []
    assert list(db.range_keys(b"ba", b"c")) == [b"ba", b"bb"]
    assert list(db.prefix(b"b")) == [(b"b", b"vb"), (b"ba", b"vba"), (b"bb", b"vbb")]
    assert list(db.prefix_keys(b"b", reverse=True)) == [b"bb", b"ba", b"b"]
    assert list(db.prefix(b"")) == list(db.items())


def test_an_iterator_shows_the_moment_of_its_creation(db):
    db.update({b"a": b"1", b"b": b"2"})
    items, keys = iter(db.items()), iter(db)
    db[b"a"] = b"new"
    db[b"c"] = b"3"
    del db[b"b"]
    assert list(items) == [(b"a", b"1"), (b"b", b"2")]
    assert list(keys) == [b"a", b"b"]
    assert list(items) == []


def test_views_know_their_store(db):
    db.update({b"a": b"1", b"b": b"2"})
    assert b"a" in db.keys() and (b"a", b"1") in db.items() and b"2" in db.values()
    assert (b"a", b"2") not in db.items()
    assert len(db.items()) == 2
    assert db.keys() & {b"a", b"z"} == {b"a"}


# Views compared the number of keys first, which counts those that have expired.
def test_views_do_not_show_expired_keys(db):
    db.put(b"a", b"1", ttl=0)
    assert list(db.keys()) == []
    assert not db.keys() and not db.items() and not db.values()
    assert db.keys() == set() and db.items() == set() and db.keys() <= set()
    db[b"b"] = b"2"
    assert db.keys() and db.items() and db.values()
    assert db.keys() == {b"b"} and {b"b"} == db.keys() and db.keys() != {b"b", b"c"}
    assert db.keys() != {b"c"} and db.keys() != [b"b"]
    assert db.keys() <= {b"b"} and not db.keys() < {b"b"} and db.keys() < {b"b", b"c"}
    assert db.keys() >= {b"b"} and not db.keys() > {b"b"} and db.keys() > set()
    assert not db.keys() >= {b"b", b"c"} and not db.keys() <= set()
    assert db.items() == {(b"b", b"2")} and db.items() <= {(b"b", b"2"), (b"c", b"3")}
    db.put(b"d", b"1", ttl=0)
    assert {b"b"} >= db.keys() and not {b"b"} > db.keys() and {b"b", b"c"} > db.keys()
    with db.snapshot() as snapshot:
        assert snapshot.keys() == db.keys() and not snapshot.keys() < db.keys()


# What is no key was compared with the keys, and raised `TypeError`.
def test_views_can_be_compared_with_sets_of_anything(db):
    db.update({b"a": b"1", b"b": b"2"})
    assert not {"a"} <= db.keys() and not db.keys() >= {"a"} and not db.keys() > {None}
    assert {"a"} != db.keys() and not db.keys() <= {"a", "b"}
    assert not {("a", b"1")} <= db.items() and not {(b"a", "1")} < db.items()
    assert not {7} <= db.items() and {(b"a", b"1")} <= db.items()
    with pytest.raises(TypeError):
        "a" in db.keys()


# The search asked for the value of each key again, and raised `KeyError` if one was gone by then.
def test_a_value_is_searched_in_one_moment(db):
    db.update({b"a": b"1", b"b": b"2"})

    class Clearing:
        def __eq__(self, value):
            db.clear()
            return value == b"2"

    assert Clearing() in db.values()
    assert b"2" not in db.values() and not db


# Each value was read anew, and `KeyError` raised if its key had expired since the keys were listed.
def test_another_store_is_copied_as_of_one_moment(db, tmp_path):
    class Forgetful(bitcask.Store):
        def __getitem__(self, key):
            raise KeyError(key)

    with Forgetful(tmp_path / "other") as other:
        other.update({b"a": b"1", b"b": b"2"})
        db.update(other)
        assert dict(db.items()) == {b"a": b"1", b"b": b"2"}
        db.clear()
        db.transaction(lambda tx: tx.update(other))
        assert dict(db.items()) == {b"a": b"1", b"b": b"2"}


def test_pop_popitem_and_setdefault(db):
    db.update([(b"a", b"1"), (b"b", b"2")])
    assert db.pop(b"b") == b"2"
    assert db.pop(b"b", None) is None
    with pytest.raises(KeyError):
        db.pop(b"b")
    assert db.setdefault(b"a", b"other") == b"1"
    assert db.setdefault(b"c", b"3") == b"3"
    assert db.popitem() == (b"a", b"1")
    assert db.popitem() == (b"c", b"3")
    with pytest.raises(KeyError):
        db.popitem()


def test_update_takes_mappings_and_pairs_and_is_atomic(db):
    db.update({b"a": b"1"})
    db.update(iter([(b"b", b"2")]))
    db.update()
    with pytest.raises(TypeError):
        db.update([(b"c", b"3"), (b"d", "4")])
    with pytest.raises(TypeError, match="named"):
        db.update(e=b"5")
    assert db == {b"a": b"1", b"b": b"2"}


def test_clear_and_deletes_of_many_keys(db):
    db.update({b"%d" % number: b"" for number in range(100)})
    assert db.delete_range(b"20", b"30") == 10 + 1
    assert db.delete_prefix(b"4") == 10 + 1
    assert len(db) == 78
    db.clear()
    assert not db and list(db) == []
    assert db.delete_range() == 0


def test_put_if_absent(db):
    assert db.put_if_absent(b"key", b"first") is True
    assert db.put_if_absent(b"key", b"second") is False
    assert db[b"key"] == b"first"


def test_a_store_is_what_it_was_after_it_was_opened_again(path):
    model = {b"%d" % number: b"v%d" % number for number in range(1000)}
    with bitcask.open(path) as db:
        db.update(model)
        del db[b"7"]
    del model[b"7"]
    with bitcask.open(path, create=False) as db:
        assert db == model
