"""What the tests share."""

import os
import shutil
import signal
import threading
import traceback
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import bitcask


@pytest.fixture
def path(tmp_path):
    """Where a test's store lies."""
    return tmp_path / "store"


@pytest.fixture
def db(path):
    """An empty store."""
    with bitcask.open(path, sync="never") as store:
        yield store


@pytest.fixture
def fixture(tmp_path):
    """Returns a copy of a store that an older system wrote, and the file that says what it holds.

    ``BITCASK_FIXTURES`` names the directory with these stores. Without it, the test is skipped.
    """

    def copied(name: str, expected: str = "expected.json"):
        fixtures = os.environ.get("BITCASK_FIXTURES")
        if not fixtures:
            pytest.skip("BITCASK_FIXTURES is not set")
        source = Path(fixtures, name)
        copy = Path(shutil.copytree(source, tmp_path / name))
        copy.chmod(0o755)
        return copy, source.with_name(f"{name}.{expected}")

    return copied


def contents(directory):
    """Returns the files directly in a directory, with their bytes and times."""
    files = (file for file in Path(directory).iterdir() if file.is_file())
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


@pytest.fixture
def busy(tmp_path):
    """Returns a context in which another thread is inside a call of a store.

    The call imports from two pipes. It has opened the first, and waits for the second.
    """

    @contextmanager
    def context(db):
        directory = tmp_path / "pipes"
        directory.mkdir()
        first, second = (directory / f"segment_{number}.log" for number in range(2))
        for pipe in (first, second):
            os.mkfifo(pipe)
        worker = threading.Thread(target=db.import_from, args=("bitcaskpy", directory))
        worker.start()
        os.close(os.open(first, os.O_WRONLY))
        try:
            yield
        finally:
            # However often it opens them.
            while worker.is_alive():
                for pipe in (first, second):
                    with suppress(OSError):
                        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            worker.join()

    return context


def in_child(function):
    """Calls a function in a forked process. Returns the status with which that ends: what the
    function returns, or 255 if it raises. A child that hangs is killed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        status = 255
        try:
            status = function()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
