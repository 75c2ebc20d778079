"""Programs that were written for pybitcask: its store, its compaction, and what it did wrong."""

import threading
from datetime import datetime

import pytest

import bitcask
import pybitcask
from pybitcask import (
    Bitcask,
    CompactionScheduler,
    EntryCountRotation,
    RotationStrategy,
    SizeBasedRotation,
)


@pytest.fixture
def store(tmp_path):
    with Bitcask(str(tmp_path / "db")) as opened:
        yield opened


def test_the_calls_of_the_store(store):
    assert store.put("key", "value") is None
    assert store.get("key") == "value"
    store.put("key", "new")
    assert store.get("key") == "new"
    assert store.get("absent") is None
    assert store.delete("key") is True
    assert store.delete("key") is False
    assert store.get("key") is None


def test_every_json_value(store):
    values = [None, True, 0, -1.5, 10**30, "", "\u00fc", "42", [], [1, [2]], {}, {"a": [None, 1.25]}]
    for number, value in enumerate(values):
        store.put(str(number), value)
    assert [store.get(str(number)) for number in range(len(values))] == values
    with pytest.raises(TypeError):
        store.put("set", {1, 2})
    assert "set" not in store and "0" in store


def test_programs_find_the_classes_where_they_were():
    from pybitcask.bitcask import Bitcask as Class
    from pybitcask.config import config
    from pybitcask.rotation import SizeBasedRotation as Rotation
    from pybitcask.scheduler import CompactionScheduler as Scheduler

    assert Class is Bitcask and Rotation is SizeBasedRotation and Scheduler is CompactionScheduler
    assert isinstance(config.get_debug_mode(), bool)
    assert pybitcask.__version__ == "0.1.0"


def test_a_store_can_be_closed_twice_and_opened_again(tmp_path):
    store = Bitcask(str(tmp_path / "db"))
    store.put("a", 1)
    store.put("b", [2])
    store.close()
    store.close()
    with pytest.raises(bitcask.Closed):
        store.get("a")
    with Bitcask(str(tmp_path / "db")) as store:
        assert (store.get("a"), store.get("b")) == (1, [2])


def test_a_batch_is_all_or_nothing(store):
    store.batch_write({"a": 1, "b": {"c": 2}})
    assert (store.get("a"), store.get("b")) == (1, {"c": 2})
    with pytest.raises(TypeError):
        store.batch_write({"d": 1, "e": object()})
    assert store.list_keys() == ["a", "b"]


def test_keys_can_be_listed_and_cleared(store):
    for key in ("b", "\u00fc", "a"):
        store.put(key, key)
    assert store.list_keys() == ["a", "b", "\u00fc"]
    store.clear()
    assert store.list_keys() == [] and store.get("a") is None


def test_a_key_has_to_be_text(store):
    for call in (
        lambda: store.put(7, 1),
        lambda: store.get(b"bytes"),
        lambda: store.delete(None),
        lambda: store.batch_write({7: 1}),
    ):
        with pytest.raises(TypeError, match="a key has to be str"):
            call()


def test_a_stored_none_survives_compaction(store):
    """pybitcask lost it, but went on listing its key."""
    store.put("none", None)
    store.compact(force=True)
    assert store.list_keys() == ["none"] and "none" in store and store.get("none") is None


def test_the_last_of_two_quick_puts_counts_after_a_restart(tmp_path):
    """pybitcask kept the first of two puts within a millisecond."""
    with Bitcask(tmp_path) as store:
        for number in range(100):
            store.put("key", number)
    with Bitcask(tmp_path) as store:
        assert store.get("key") == 99


def test_deleted_keys_stay_deleted_with_more_than_nine_files(tmp_path):
    """pybitcask sorted files as text, and brought such keys back."""
    with Bitcask(tmp_path, rotation_strategy=EntryCountRotation(max_entries=1)) as store:
        for number in range(9):
            store.put(f"fill{number}", number)
        store.put("victim", 1)
        store.put("more", 1)
        store.delete("victim")
    with Bitcask(tmp_path) as store:
        assert store.get("victim") is None and len(store.list_keys()) == 10


def test_two_objects_see_each_other(tmp_path):
    first, second = Bitcask(tmp_path), Bitcask(tmp_path)
    first.put("a", 1)
    assert second.get("a") == 1
    second.put("a", 2)
    first.close()
    assert second.get("a") == 2
    second.close()


def test_text_of_other_programs_is_read_as_text(store):
    store.bitcask[b"plain"] = b"not json"
    store.bitcask[b"number"] = b"42"
    assert (store.get("plain"), store.get("number")) == ("not json", 42)


@pytest.mark.parametrize("debug_mode", [False, True])
def test_the_debug_mode_changes_no_data(tmp_path, debug_mode):
    with Bitcask(tmp_path, debug_mode=not debug_mode) as store:
        store.put("a", 1)
    with Bitcask(tmp_path, debug_mode=debug_mode) as store:
        assert store.debug_mode is debug_mode and store.get("a") == 1


def test_the_directory_comes_from_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = pybitcask.config.BitcaskConfig()
    assert str(config.get_data_dir("/elsewhere")) == "/elsewhere"
    assert not config.config_file.exists()
    config.set_data_dir(tmp_path / "data")
    config.set_debug_mode(True)
    again = pybitcask.config.BitcaskConfig()
    assert again.get_data_dir() == tmp_path / "data" and again.get_debug_mode() is True
    monkeypatch.setattr(pybitcask.bitcask, "config", again)
    with Bitcask() as store:
        store.put("a", 1)
        assert store.debug_mode is True
    assert (tmp_path / "data" / "MANIFEST").exists()


def test_the_strategies_decide_at_their_limit():
    now = datetime.now()
    size, count = SizeBasedRotation(max_size_bytes=1000), EntryCountRotation(max_entries=100)
    assert [size.should_rotate(it, 0, now) for it in (999, 1000, 1001)] == [False, True, True]
    assert [count.should_rotate(0, it, now) for it in (99, 100, 101)] == [False, True, True]
    with pytest.raises(TypeError):
        RotationStrategy()


def files_after(store, puts):
    for number in range(puts):
        store.put(f"key{number}", "x" * 500)
    assert [store.get(f"key{number}") for number in range(puts)] == ["x" * 500] * puts
    return store.get_compaction_stats()["total_files"]


def test_files_are_rotated_by_size(tmp_path):
    with Bitcask(tmp_path, rotation_strategy=SizeBasedRotation(max_size_bytes=75)) as store:
        assert files_after(store, 3) == 3


def test_files_are_rotated_by_number_of_entries(tmp_path):
    with Bitcask(tmp_path, rotation_strategy=EntryCountRotation(max_entries=2)) as store:
        assert files_after(store, 5) == 3


def test_without_a_strategy_there_is_one_file(store):
    assert files_after(store, 10) == 1


def test_a_strategy_of_the_programs_own_is_ignored_with_a_warning(tmp_path):
    class Never(RotationStrategy):
        def should_rotate(self, file_size, entry_count, last_write_time):
            return False

    with pytest.warns(UserWarning, match="Never has no effect"):
        store = Bitcask(tmp_path, rotation_strategy=Never())
    with store:
        assert files_after(store, 3) == 1


def waste(store):
    """Writes 20 MB, of which a twentieth is live."""
    for number in range(20):
        store.put("key", "x" * 1_000_000)
        store.put(f"small{number}", number)


def test_small_stores_are_not_compacted(store):
    store.put("a", "x" * 1000)
    store.delete("a")
    assert store.should_compact(0.0) is False
    stats = store.get_compaction_stats()
    assert set(stats) == {
        "total_files", "total_size", "live_keys", "estimated_live_size", "estimated_dead_ratio",
    }
    result = store.compact()
    assert result == {"performed": False, "reason": "threshold_not_met", "initial_stats": stats}


def test_compaction_frees_space_and_tells_what_it_did(store):
    waste(store)
    assert store.should_compact(0.9) is True and store.should_compact(0.99) is False
    assert store.compact(threshold_ratio=0.99)["performed"] is False
    result = store.compact(threshold_ratio=0.5)
    assert result["performed"] is True and result["records_written"] == 21
    assert result["files_removed"] == len(result["removed_files"]) >= 1
    assert result["space_saved_bytes"] > 18_000_000 and 0.9 < result["space_saved_ratio"] < 1
    assert result["initial_stats"]["total_size"] > result["final_stats"]["total_size"]
    assert result["bytes_written"] > 1_000_000 and result["duration_seconds"] > 0
    assert result["final_stats"]["live_keys"] == 21 and store.get("small19") == 19
    assert store.compact()["performed"] is False
    assert store.compact(force=True)["performed"] is True


def test_a_compaction_that_fails_is_a_runtime_error(store, monkeypatch):
    class Failing:
        def __getattr__(self, name):
            return getattr(opened, name)

        def __len__(self):
            return len(opened)

        def merge(self, force):
            raise bitcask.NoSpace("no space left")

    opened = store.bitcask
    monkeypatch.setattr(type(store._lease), "store", Failing())
    with pytest.raises(RuntimeError, match="no space left"):
        store.compact(force=True)


def test_a_scheduler_compacts_when_it_is_time(store):
    waste(store)
    results, done = [], threading.Event()

    def note(result):
        results.append(result)
        done.set()

    scheduler = store.start_auto_compaction(3600, 0.5, note)
    assert store.auto_compaction_running and scheduler.is_running
    assert not done.is_set()
    scheduler.interval_seconds = 0.001
    assert done.wait(60)
    assert store.stop_auto_compaction(timeout=60) is True
    assert not store.auto_compaction_running and not scheduler.is_running
    assert [result["performed"] for result in results] == [True]


def test_a_compaction_can_be_triggered(store):
    waste(store)
    results = []
    scheduler = CompactionScheduler(store, threshold_ratio=0.99, on_compaction_complete=results.append)
    assert scheduler.trigger_compaction() is None
    scheduler.threshold_ratio = 0.5
    assert scheduler.trigger_compaction() == results[0]
    assert scheduler.trigger_compaction() is None
    assert scheduler.trigger_compaction(force=True)["performed"] is True
    assert len(results) == 2 and not scheduler.is_running


def test_the_settings_of_a_scheduler_are_checked(store):
    scheduler = CompactionScheduler(store)
    assert (scheduler.interval_seconds, scheduler.threshold_ratio) == (300.0, 0.3)
    for seconds in (0, -1):
        with pytest.raises(ValueError, match="interval_seconds"):
            scheduler.interval_seconds = seconds
    for ratio in (-0.1, 1.1):
        with pytest.raises(ValueError, match="threshold_ratio"):
            scheduler.threshold_ratio = ratio
    with pytest.raises(ValueError):
        CompactionScheduler(store, interval_seconds=0)
    with pytest.raises(ValueError):
        store.start_auto_compaction(threshold_ratio=2)
    assert not store.auto_compaction_running
    scheduler.threshold_ratio, scheduler.interval_seconds = 0.0, 1e-3
    assert (scheduler.interval_seconds, scheduler.threshold_ratio) == (1e-3, 0.0)


def test_a_scheduler_is_started_and_stopped_any_number_of_times(store, caplog):
    scheduler = CompactionScheduler(store)
    assert scheduler.stop() is True
    for _ in range(2):
        scheduler.start()
        scheduler.start()
        assert scheduler.is_running
        assert scheduler.stop(timeout=60) is True
        assert not scheduler.is_running
    assert "scheduled already" in caplog.text
    assert store.stop_auto_compaction() is True


def test_what_fails_in_a_scheduler_is_logged(store, caplog):
    def fail(result):
        raise LookupError("in the callback")

    waste(store)
    scheduler = CompactionScheduler(store, on_compaction_complete=fail)
    assert scheduler.trigger_compaction()["performed"] is True
    assert "in the callback" in caplog.text
    store.close()
    assert scheduler.trigger_compaction(force=True) is None
    assert "compaction has failed" in caplog.text


def test_closing_stops_the_scheduler(tmp_path):
    store = Bitcask(tmp_path)
    scheduler = store.start_auto_compaction()
    second = store.start_auto_compaction()
    assert not scheduler.is_running and second.is_running
    store.close()
    assert not second.is_running


# A thread was started, and the scheduler said that it runs.
def test_a_closed_store_is_not_compacted(tmp_path):
    store = Bitcask(tmp_path)
    scheduler = CompactionScheduler(store)
    store.close()
    for call in (store.start_auto_compaction, scheduler.start, store.compact, store.should_compact):
        with pytest.raises(bitcask.Closed):
            call()
    assert not store.auto_compaction_running and not scheduler.is_running
    assert store.stop_auto_compaction() is True


def test_a_compaction_that_outlives_its_store_is_a_runtime_error(store, monkeypatch):
    class Closing(bitcask.Store):
        def merge(self, *, force=False):
            report = super().merge(force=force)
            self.close()
            return report

    monkeypatch.setattr(store.bitcask, "__class__", Closing)
    with pytest.raises(RuntimeError, match="the store was closed meanwhile"):
        store.compact(force=True)


# Such a key was listed, and could not be read or deleted under the name in the list.
def test_a_key_that_is_no_text_can_be_used_under_the_name_in_the_list(store):
    store.bitcask[b"\xff/1"] = b"[1]"
    (key,) = store.list_keys()
    assert key in store and store.get(key) == [1]
    store.batch_write({key: [2]})
    assert list(store.bitcask.items()) == [(b"\xff/1", b"[2]")]
    assert store.delete(key) is True and store.list_keys() == []


# The import of the module failed.
@pytest.mark.parametrize("content", ["[1]", "null", "7", "{"])
def test_a_configuration_that_cannot_be_used_is_ignored(tmp_path, monkeypatch, capsys, content):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = pybitcask.config.BitcaskConfig().config_file
    file.parent.mkdir(parents=True)
    file.write_text(content)
    config = pybitcask.config.BitcaskConfig()
    assert config.get_data_dir() == config.default_data_dir
    assert "Could not load config file" in capsys.readouterr().out


def test_a_configuration_needs_no_home(monkeypatch, capsys):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pybitcask.config.Path, "home", fail)
    config = pybitcask.config.BitcaskConfig()
    assert config.get_debug_mode() is False
    assert "home directory" in capsys.readouterr().out
