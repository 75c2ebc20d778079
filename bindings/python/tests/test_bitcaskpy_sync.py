"""How durable the writes of bitcaskpy's programs are, and imports that overtake each other."""

import pytest

import bitcask
from bitcask import _moved
from bitcaskpy import BitcaskStore, open_store
from bitcaskpy.store import Entry, SegmentManager


def makes_each_write_durable(store):
    """Returns whether a write of each kind returns only after a sync."""
    outcomes = set()
    for write in (lambda: store.put("a", "1"), lambda: store.delete("a")):
        before = store.bitcask.stats()["syncs"]
        write()
        outcomes.add(store.bitcask.stats()["syncs"] > before)
    (outcome,) = outcomes
    return outcome


# `True` was read as one second.
def test_the_class_takes_flags_too(path):
    with BitcaskStore(path, sync=True) as store:
        assert makes_each_write_durable(store)
    with BitcaskStore(path, sync=False) as store:
        assert not makes_each_write_durable(store)
    with BitcaskStore(path, sync="always") as store:
        assert makes_each_write_durable(store)


# The variable had no effect in programs that spell out the other option's default.
def test_an_option_does_not_hide_the_variable_of_another_one(path, monkeypatch):
    monkeypatch.setenv("BITCASKPY_SYNC", "1")
    with open_store(path, fsync_on_append=False) as store:
        assert makes_each_write_durable(store)
    with open_store(path, sync=False, fsync_interval=60) as store:
        assert not makes_each_write_durable(store)
    monkeypatch.delenv("BITCASKPY_SYNC")
    with open_store(path, fsync_on_append=True) as store:
        assert makes_each_write_durable(store)


# The options of the one that came first counted, and the other's writes were not durable.
def test_a_store_that_others_have_opened_is_as_durable_as_each_has_asked_for(path):
    with open_store(path, fsync_interval=60) as first, open_store(path, sync=True) as second:
        assert first.bitcask is second.bitcask
        assert makes_each_write_durable(second)
        assert not makes_each_write_durable(first)


# Two processes import at once, and the other one is faster: its store is the one that counts.
@pytest.mark.parametrize("moment", ["before the import", "during the import"])
def test_an_import_that_another_process_has_completed_is_dropped(tmp_path, monkeypatch, moment):
    old = Entry(1.0, 1, 3, b"a", b"old")
    SegmentManager(str(tmp_path)).append(old)

    def overtake():
        with bitcask.open(tmp_path / "bitcask") as db:
            db[b"a"] = b"new"

    if moment == "before the import":
        monkeypatch.setattr(_moved, "_check_room", lambda *_: overtake())
    else:

        class Overtaken(bitcask.Store):
            def import_from(self, *arguments):
                overtake()
                return super().import_from(*arguments)

        monkeypatch.setattr(_moved, "Store", Overtaken)
    with open_store(tmp_path) as store:
        assert store.get("a") == "new"
    assert not (tmp_path / "bitcask.importing").exists()
