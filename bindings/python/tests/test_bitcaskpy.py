"""Programs that were written for bitcaskpy: its store, and what it did wrong."""

import json
import os
import threading
from pathlib import Path

import pytest

import bitcask
import bitcaskpy
from bitcaskpy import BitcaskStore, close_store, open_store
from bitcaskpy.client import BitcaskClient
from bitcaskpy.store import Entry, SegmentManager

from conftest import contents


def record(key, value, tombstone=False, timestamp=1.0):
    """Returns a record, as one that counts bytes would be written."""
    key, value = key.encode(), value.encode()
    return Entry(timestamp, len(key), len(value), key, value, tombstone)


def test_the_calls_of_the_store(tmp_path):
    with open_store(tmp_path) as store:
        assert isinstance(store, BitcaskStore)
        assert store.put("a", "1") is None
        store.put("b", "2")
        store.put("a", "3")
        assert (store.get("a"), store.get("b"), store.get("c")) == ("3", "2", None)
        assert store.delete("a") is None
        assert store.get("a") is None
        store.delete("never there")
        assert store.get("never there") is None


def test_programs_find_the_classes_where_they_were():
    from bitcaskpy.config.defaults import DEFAULT_MAX_SEGMENT_ENTRIES, DEFAULT_MAX_SEGMENT_SIZE
    from bitcaskpy.store.bitcask_store import BitcaskStore as Store

    assert Store is bitcaskpy.BitcaskStore
    assert (DEFAULT_MAX_SEGMENT_SIZE, DEFAULT_MAX_SEGMENT_ENTRIES) == (10_485_760, 10_000)
    assert bitcaskpy.__version__ == "0.1.0"


def test_later_programs_find_them_under_another_name(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "bitcaskpy-app")
    import app.core.store.segment
    from app import open_store as opener
    from app.client.client import BitcaskClient as Client
    from app.core import BitcaskStore as Store
    from app.core.config.defaults import DEFAULT_MAX_SEGMENT_SIZE
    from app.core.store.hash_table import HashTable

    assert (opener, Client, Store) == (open_store, BitcaskClient, BitcaskStore)
    assert HashTable is bitcaskpy.store.HashTable
    assert app.core.store.segment.DEFAULT_MAX_SEGMENT_SIZE == DEFAULT_MAX_SEGMENT_SIZE


def test_a_second_object_reads_what_the_first_wrote(tmp_path):
    """There was no call that closes a store, so programs simply open it again."""
    first = BitcaskStore(str(tmp_path))
    first.put("a", "1")
    second = BitcaskStore(str(tmp_path))
    assert second.get("a") == "1"
    second.delete("a")
    second.put("b", "2")
    assert (first.get("a"), first.get("b")) == (None, "2")
    first.close()
    assert second.get("b") == "2"
    second.close()
    with pytest.raises(bitcask.Closed):
        second.get("b")


def test_a_store_that_is_forgotten_is_closed(tmp_path):
    BitcaskStore(tmp_path).put("a", "1")
    with bitcask.open(tmp_path) as db:
        assert dict(db) == {b"a": b"1"}


def test_large_values_and_values_that_do_not_fit_a_segment(tmp_path):
    """bitcaskpy failed forever on a value that did not fit into what was left of a segment."""
    values = {"million": "v" * 10**6, "nine": "9" * (9 << 20), "two": "2" * (2 << 20), "end": ""}
    with open_store(tmp_path) as store:
        for key, value in values.items():
            store.put(key, value)
        assert all(store.get(key) == value for key, value in values.items())


def test_text_that_is_not_ascii(tmp_path):
    """bitcaskpy counted characters, and could read neither such a record nor the next ones."""
    texts = ["\u00fc", "\u6570\u636e", "\U0001f642", "a\u0000b", ""]
    with open_store(tmp_path) as store:
        for text in texts:
            store.put(text, text + "!")
        assert [store.get(text) for text in texts] == [text + "!" for text in texts]


def test_a_restart_keeps_every_value(tmp_path):
    """After a restart, bitcaskpy returned another key's value."""
    with open_store(tmp_path) as store:
        store.put("a", "11111")
        store.put("b", "22222")
    with open_store(tmp_path) as store:
        store.put("c", "33333")
        assert [store.get(key) for key in "abc"] == ["11111", "22222", "33333"]


def test_a_directory_can_be_moved(tmp_path):
    with open_store(tmp_path / "here") as store:
        store.put("a", "1")
    os.rename(tmp_path / "here", tmp_path / "there")
    with open_store(tmp_path / "there") as store:
        assert store.get("a") == "1"


def test_two_processes_do_not_overwrite_each_other(tmp_path):
    store = open_store(tmp_path)
    with pytest.raises(IOError, match="is locked by"):
        bitcask.open(tmp_path)
    store.close()


@pytest.mark.parametrize("wrong", [7, None, b"bytes"])
def test_what_is_not_text_is_refused(tmp_path, wrong):
    with open_store(tmp_path) as store:
        for call in (
            lambda: store.put(wrong, "v"),
            lambda: store.put("k", wrong),
            lambda: store.get(wrong),
            lambda: store.delete(wrong),
        ):
            with pytest.raises(TypeError, match="has to be str"):
                call()


def test_sizes_can_be_limited(tmp_path):
    with open_store(tmp_path, max_key_size=1024, max_value_size=1 << 20) as store:
        store.put("k" * 1024, "v" * (1 << 20))
        with pytest.raises(ValueError):
            store.put("k" * 1025, "")
        with pytest.raises(ValueError):
            store.put("k", "v" * ((1 << 20) + 1))


def test_the_options_of_open_store(tmp_path):
    with open_store(
        path=tmp_path, sync=True, max_segment_size=4096, max_entries_per_segment=2
    ) as store:
        for number in range(5):
            syncs = store.bitcask.stats()["syncs"]
            store.put(str(number), "v")
            assert store.bitcask.stats()["syncs"] > syncs
        assert store.bitcask.stats()["segments"] >= 3
    with pytest.raises(TypeError):
        open_store(tmp_path, path=tmp_path)


def test_the_environment_has_options(tmp_path, monkeypatch):
    monkeypatch.setenv("BITCASKPY_SYNC", "True")
    monkeypatch.setenv("BITCASKPY_MAX_ENTRIES_PER_SEGMENT", "1")
    monkeypatch.setenv("BITCASKPY_MAX_SEGMENT_SIZE", "20971520")
    monkeypatch.setenv("BITCASKPY_FSYNC_INTERVAL", "10")
    with open_store(tmp_path) as store:
        for key in "abc":
            store.put(key, "v")
        stats = store.bitcask.stats()
        assert stats["segments"] >= 3 and stats["syncs"] >= 3
    monkeypatch.setenv("BITCASKPY_SYNC", "false")
    monkeypatch.setenv("BITCASKPY_FSYNC_INTERVAL", "soon")
    with pytest.raises(ValueError, match="BITCASKPY_FSYNC_INTERVAL"):
        open_store(tmp_path)


@pytest.mark.parametrize("seconds", [0, 1e-4, -1])
def test_an_interval_that_is_too_short_is_refused(tmp_path, seconds):
    with pytest.raises(ValueError, match="`fsync_interval` is .*`sync=True`"):
        open_store(tmp_path, fsync_interval=seconds)


def test_close_store_closes_all(tmp_path):
    stores = [open_store(tmp_path / name) for name in "ab"]
    close_store(stores[0])
    with pytest.raises(bitcask.Closed):
        stores[0].get("a")
    assert stores[1].get("a") is None
    close_store()
    with pytest.raises(bitcask.Closed):
        stores[1].get("a")
    close_store()


def test_the_default_directory_is_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_store() as store:
        store.put("a", "1")
    assert (tmp_path / "data" / "MANIFEST").exists()


def test_threads_share_a_store(tmp_path):
    with open_store(tmp_path) as store:

        def work(number):
            for round in range(200):
                store.put(f"{number}/{round}", str(round))
                assert store.get(f"{number}/{round}") == str(round)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.bitcask) == 800


def test_a_directory_of_bitcaskpy_is_imported_once(tmp_path):
    manager = SegmentManager(str(tmp_path), max_segment_entries=2)
    for entry in (
        record("a", "old", timestamp=9.0),
        record("b", "2"),
        record("gone", "x"),
        record("gone", "", tombstone=True),
        record("a", "new", timestamp=1.0),
    ):
        manager.append(entry)
    # bitcaskpy counts characters, not bytes.
    key, value = "\u00fc", "\u6570\u636e"
    counted = Entry(1.0, len(key), len(value), key.encode(), value.encode())
    (tmp_path / "segment_10.log").write_bytes(counted.serialize())
    before = contents(tmp_path)
    with open_store(tmp_path) as store:
        assert {key: store.get(key) for key in ("a", "b", "\u00fc", "gone")} == {
            "a": "new",
            "b": "2",
            "\u00fc": "\u6570\u636e",
            "gone": None,
        }
        store.delete("b")
    assert contents(tmp_path) == before
    with open_store(tmp_path) as store:
        assert store.get("b") is None and store.get("a") == "new"
    with bitcask.open(tmp_path / "bitcask", create=False) as db:
        assert sorted(db) == [b"a", "\u00fc".encode()]


def test_an_import_that_was_interrupted_is_completed(tmp_path):
    SegmentManager(str(tmp_path)).append(record("a", "1"))
    with bitcask.open(tmp_path / "bitcask.importing") as db:
        db[b"a"] = b"half"
    with open_store(tmp_path) as store:
        assert store.get("a") == "1"
    assert not (tmp_path / "bitcask.importing").exists()


# The old files were imported, and then could not be moved to where they belong.
@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_an_import_does_not_begin_without_a_place_for_the_store(tmp_path, kind):
    SegmentManager(str(tmp_path)).append(record("a", "1"))
    place = tmp_path / "bitcask"
    if kind == "directory":
        place.mkdir()
        (place / "notes.txt").write_text("mine")
    elif kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(bitcask.StorageError, match="bitcask is no store.*move it away"):
        open_store(tmp_path)
    assert not (tmp_path / "bitcask.importing").exists()
    place.rename(tmp_path / "moved")
    place.mkdir()
    with open_store(tmp_path) as store:
        assert store.get("a") == "1"


def test_what_is_torn_is_logged(tmp_path, caplog):
    SegmentManager(str(tmp_path)).append(record("a", "1"))
    with open(tmp_path / "segment_0.log", "ab") as log:
        log.write(record("b", "2").serialize()[:-1])
    with open_store(tmp_path) as store:
        assert store.get("a") == "1" and store.get("b") is None
    assert "segment_0.log" in caplog.text


def test_a_store_of_bitcaskpy_itself_opens(fixture):
    directory, expected = fixture("bitcaskpy")
    before = contents(directory)
    pairs = json.loads(expected.read_text(encoding="utf-8"))
    with open_store(directory) as store:
        assert {key.decode(): value.decode() for key, value in store.bitcask.items()} == pairs
        assert all(store.get(key) == value for key, value in pairs.items())
    assert contents(directory) == before
