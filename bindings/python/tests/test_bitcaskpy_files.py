"""The classes that read and write bitcaskpy's own files."""

import errno
import json
import os
import resource
from contextlib import contextmanager

import pytest

from bitcaskpy.store import Entry, HashTable, HashTableEntry, Segment, SegmentManager

from conftest import contents


def entry(key=b"key", value=b"value", timestamp=1625077765.1, tombstone=False):
    return Entry(timestamp, len(key), len(value), key, value, tombstone)


def test_a_record_is_read_as_it_was_written():
    for written in (entry(), entry(b"", b""), entry(value=b"", tombstone=True)):
        bytes = written.serialize()
        assert len(bytes) == written.size() == 17 + len(written.key) + len(written.value)
        assert Entry.deserialize(bytes) == written
        assert Entry.deserialize(bytes + b"next") == written
        for end in range(len(bytes)):
            with pytest.raises(ValueError):
                Entry.deserialize(bytes[:end])
    assert entry(tombstone=True).is_tombstone() and not entry().is_tombstone()
    assert entry().header_size() == 17


def test_the_header_of_a_record():
    assert entry(b"ab", b"c", 1.0, True).serialize() == (
        b"\x3f\xf0\0\0\0\0\0\0" b"\0\0\0\x02" b"\0\0\0\x01" b"\x01" b"abc"
    )


def test_a_new_segment_has_its_files(tmp_path):
    segment = Segment.new_segment(1, str(tmp_path), 1024, 100)
    assert segment.filepath == f"{tmp_path}/segment_1.log"
    assert segment.metadata_filepath == f"{tmp_path}/segment_1.hint"
    assert segment.index_filepath == f"{tmp_path}/segment_1.index"
    assert (segment.id, segment.size, segment.num_entries) == (1, 0, 0)
    assert (segment.max_size, segment.max_entries) == (1024, 100)
    assert segment.is_active() and not segment.closed and not segment.is_full()
    assert os.path.getsize(segment.filepath) == os.path.getsize(segment.index_filepath) == 0
    with open(segment.metadata_filepath) as hint:
        assert Segment.from_dict(json.load(hint)) == segment


def test_a_closed_segment_says_so_in_its_hint(tmp_path):
    segment = Segment.new_segment(1, str(tmp_path))
    before = segment.last_sync
    segment.close()
    assert segment.closed and not segment.active and not segment.is_active()
    assert segment.last_sync > before
    with open(segment.metadata_filepath) as hint:
        assert json.load(hint)["closed"] is True


def test_a_segment_returns_what_was_appended(tmp_path):
    segment = Segment.new_segment(1, str(tmp_path))
    written = [entry(), entry(b"other", b""), entry(tombstone=True, value=b"")]
    for one in written:
        segment.append(one)
    assert segment.read(0) == written[0]
    assert segment.read(written[0].size()) == written[1]
    assert [one for _, one in segment.entries()] == written
    with pytest.raises(ValueError):
        segment.read(segment.size)
    with open(segment.index_filepath) as index:
        rows = [json.loads(line) for line in index]
    assert [row["key"] for row in rows] == ["key", "other", "key"]
    assert [row["offset"] for row in rows] == [offset for offset, _ in segment.entries()]


def test_a_segment_that_is_full_by_size_or_number_refuses(tmp_path):
    by_size = Segment.new_segment(1, str(tmp_path), 50, 100)
    with pytest.raises(ValueError, match="Segment is full"):
        by_size.append(entry(b"k" * 30, b"v" * 25))
    by_number = Segment.new_segment(2, str(tmp_path), 1024, 2)
    by_number.append(entry())
    by_number.append(entry())
    assert by_number.is_full()
    with pytest.raises(ValueError, match="Segment is full"):
        by_number.append(entry())
    assert by_number.num_entries == 2


def test_a_segment_is_opened_as_it_was_closed(tmp_path):
    segment = Segment.new_segment(1, str(tmp_path), 1024, 100)
    segment.append(entry())
    segment.append(entry(b"k2"))
    segment.close()
    opened = Segment.open_segment(1, str(tmp_path))
    for name in ("id", "filepath", "size", "num_entries", "active", "closed", "max_size", "max_entries"):
        assert getattr(opened, name) == getattr(segment, name), name
    assert opened.read(0) == entry()
    with pytest.raises(FileNotFoundError):
        Segment.open_segment(2, str(tmp_path))


@pytest.mark.parametrize("hint", [None, "", "{\"id\": 1", "[]"])
def test_a_hint_that_is_missing_or_torn_is_written_anew(tmp_path, hint):
    segment = Segment.new_segment(1, str(tmp_path))
    segment.append(entry())
    if hint is None:
        os.remove(segment.metadata_filepath)
    else:
        with open(segment.metadata_filepath, "w") as file:
            file.write(hint)
    for _ in range(2):
        opened = Segment.open_segment(1, str(tmp_path))
        assert opened.closed and not opened.active
        assert (opened.size, opened.num_entries) == (segment.size, 1)


def test_sizes_and_paths_come_from_the_files_and_not_from_a_stale_hint(tmp_path):
    """bitcaskpy believed the hint: after a restart it overlooked what it had appended since, and
    it looked for the files where they had been before the directory was moved."""
    os.mkdir(tmp_path / "here")
    segment = Segment.new_segment(0, str(tmp_path / "here"))
    segment.append(entry(b"a", b"11111"))
    os.rename(tmp_path / "here", tmp_path / "there")
    manager = SegmentManager(str(tmp_path / "there"))
    result = manager.append(entry(b"c", b"33333"))
    assert result.offset == segment.size
    assert manager.read(0, 0).value == b"11111"
    assert manager.read(0, result.offset).value == b"33333"


# What followed a torn record was appended to it: the new record was lost, and the torn one had a
# value that nobody had put.
@pytest.mark.parametrize("missing", [1, 3, 6, 20])
def test_nothing_is_appended_behind_a_torn_record(tmp_path, missing):
    manager = SegmentManager(str(tmp_path))
    first, second, third = (entry(key, key * 5) for key in (b"a", b"b", b"c"))
    manager.append(first)
    manager.append(second)
    log = manager.get_segment(0).filepath
    os.truncate(log, os.path.getsize(log) - missing)
    before = contents(tmp_path)["segment_0.log"]
    torn = Segment.open_segment(0, str(tmp_path))
    assert torn.closed and torn.num_entries == 1
    with pytest.raises(ValueError, match="Segment is closed"):
        torn.append(third)
    result = SegmentManager(str(tmp_path)).append(third)
    assert (result.segment_id, result.offset) == (1, 0)
    assert contents(tmp_path)["segment_0.log"] == before
    again, table = SegmentManager(str(tmp_path)), HashTable()
    table.recover_from_segment_manager(again)
    assert table.get("b") is None and table.size() == 2
    for key, expected in (("a", first), ("c", third)):
        place = table.get(key)
        assert again.read(place.segment_id, place.value_pos) == expected
    # What is appended later goes to the new segment as well.
    assert again.append(second).segment_id == 1


@contextmanager
def files_limited_to(size):
    """Lets files grow up to a size only, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The interpreter ignores the signal that comes with the error.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# The next record was written behind the torn one, but noted and returned as if it were in its place.
@pytest.mark.parametrize("left", [0, 1, 20, 90])
def test_a_program_can_go_on_after_an_append_has_failed(tmp_path, left):
    manager = SegmentManager(str(tmp_path))
    first, second = entry(b"a", b"1" * 50), entry(b"b", b"2" * 100)
    manager.append(first)
    before = contents(tmp_path)
    with files_limited_to(first.size() + left), pytest.raises(OSError):
        manager.append(second)
    for name in ("segment_0.log", "segment_0.index"):
        assert contents(tmp_path)[name][0] == before[name][0]
    result = manager.append(second)
    assert (result.segment_id, result.offset) == (0, first.size())
    again, table = SegmentManager(str(tmp_path)), HashTable()
    table.recover_from_segment_manager(again)
    assert again.read(0, table.get("b").value_pos) == second
    assert [one for _, one in again.get_segment(0).entries()] == [first, second]


def test_an_append_is_undone_if_its_line_in_the_index_fails(tmp_path):
    manager = SegmentManager(str(tmp_path))
    # The line of an empty record is longer than the record.
    for _ in range(4):
        manager.append(entry(b"", b""))
    segment = manager.get_segment(0)
    index_size = os.path.getsize(segment.index_filepath)
    with files_limited_to(index_size + 10), pytest.raises(OSError):
        manager.append(entry(b"", b""))
    assert os.path.getsize(segment.filepath) == segment.size == 4 * 17
    assert os.path.getsize(segment.index_filepath) == index_size


def test_a_record_is_there_although_the_sizes_cannot_be_noted(tmp_path, monkeypatch):
    segment = Segment.new_segment(0, str(tmp_path))
    segment.metadata_sync_interval = 0

    def full():
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(segment, "_write_hint", full)
    segment.append(entry(b"a", b"1"))
    segment.append(entry(b"b", b"2"))
    assert [one.key for _, one in segment.entries()] == [b"a", b"b"]


def test_a_segment_ends_if_what_a_failed_append_has_left_cannot_be_removed(tmp_path, monkeypatch):
    manager = SegmentManager(str(tmp_path))
    first, second = entry(b"a", b"1" * 50), entry(b"b", b"2" * 100)
    manager.append(first)

    def fail(*_):
        raise OSError("not now")

    with monkeypatch.context() as patch, files_limited_to(first.size() + 20):
        patch.setattr(os, "truncate", fail)
        with pytest.raises(OSError):
            manager.append(second)
    assert manager.get_segment(0).closed
    result = manager.append(second)
    assert (result.segment_id, result.offset) == (1, 0)
    again = SegmentManager(str(tmp_path))
    assert again.read(0, 0) == first and again.read(1, 0) == second


def test_nothing_is_appended_to_a_segment_that_another_program_has_changed(tmp_path):
    first, second = SegmentManager(str(tmp_path)), SegmentManager(str(tmp_path))
    first.append(entry(b"a"))
    with pytest.raises(ValueError, match="changed by another program"):
        second.append(entry(b"b"))
    assert second.get_segment(0).closed
    assert first.read(0, 0) == entry(b"a")


def test_a_manager_begins_with_an_empty_segment(tmp_path):
    manager = SegmentManager(str(tmp_path / "new"))
    assert manager.base_directory == str(tmp_path / "new")
    assert list(manager.segments) == [0] and manager.next_segment_id == 1
    assert manager.get_active_segment() is manager.get_segment(0)
    assert manager.get_segments() == [manager.get_active_segment()]


def test_a_manager_opens_the_segments_that_exist(tmp_path):
    Segment.new_segment(0, str(tmp_path), 1024, 100).close()
    Segment.new_segment(1, str(tmp_path), 1024, 100)
    manager = SegmentManager(str(tmp_path))
    assert (len(manager.segments), manager.active_segment_id, manager.next_segment_id) == (2, 1, 2)


def test_only_the_newest_segment_is_active_even_if_several_say_so(tmp_path):
    for id in (0, 9, 10):
        Segment.new_segment(id, str(tmp_path))
    manager = SegmentManager(str(tmp_path))
    assert [segment.id for segment in manager.get_segments()] == [0, 9, 10]
    assert manager.active_segment_id == 10


def test_a_manager_tells_where_it_has_appended(tmp_path):
    manager = SegmentManager(str(tmp_path))
    size = entry().size()
    for number in range(3):
        result = manager.append(entry())
        assert (result.segment_id, result.offset, result.entry_size) == (0, number * size, size)
    assert manager.read(0, size) == entry()
    with pytest.raises(ValueError, match="Segment 999 not found"):
        manager.read(999, 0)
    with pytest.raises(ValueError, match="Segment 999 not found"):
        manager.get_segment(999)


def test_a_manager_begins_another_segment_when_one_is_full(tmp_path):
    manager = SegmentManager(str(tmp_path), max_segment_entries=3)
    first = manager.get_active_segment()
    for _ in range(4):
        manager.append(entry())
    second = manager.get_active_segment()
    assert (first.num_entries, second.num_entries) == (3, 1)
    assert second.id == first.id + 1
    assert second.is_active() and not first.is_active()


def test_a_record_that_does_not_fit_begins_another_segment(tmp_path):
    manager = SegmentManager(str(tmp_path), max_segment_size=100)
    manager.append(entry(value=b"v" * 60))
    assert manager.append(entry(value=b"v" * 40)).segment_id == 1


def test_a_table_finds_the_last_record_of_each_key(tmp_path):
    """bitcaskpy compared times, so that a clock that was set back brought back old values."""
    manager = SegmentManager(str(tmp_path), max_segment_entries=2)
    manager.append(entry(b"a", b"old", timestamp=9.0))
    manager.append(entry(b"b", b"22"))
    manager.append(entry(b"gone", b"x"))
    manager.append(entry(b"gone", b"", tombstone=True))
    last = manager.append(entry(b"a", b"newer", timestamp=1.0))
    for index in [segment.index_filepath for segment in manager.get_segments()]:
        os.remove(index)
    table = HashTable()
    table.recover_from_segment_manager(manager)
    assert table.size() == 2 and table.get("gone") is None
    assert table.get("a") == HashTableEntry(last.segment_id, 5, last.offset, 1.0)
    assert manager.read(last.segment_id, table.get("a").value_pos).value == b"newer"


def test_a_table_of_no_records_is_empty(tmp_path):
    manager = SegmentManager(str(tmp_path))
    manager.get_active_segment().close()
    table = HashTable()
    table.recover_from_segment_manager(manager)
    assert table.size() == 0


def test_a_table_is_changed_by_hand():
    table = HashTable()
    table.put(key="a", segment_id=3, offset=17, size=5, timestamp=2.5)
    table.put(key="b", segment_id=3, offset=40, size=1, timestamp=2.5)
    assert table.size() == 2
    place = table.get("a")
    assert (place.segment_id, place.value_pos, place.value_size, place.timestamp) == (3, 17, 5, 2.5)
    assert HashTableEntry.from_dict(place.to_dict()) == place
    table.delete("a")
    table.delete("a")
    assert table.get("a") is None and table.size() == 1
