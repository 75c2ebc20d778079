"""What the tests share."""

import os
import shutil
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
