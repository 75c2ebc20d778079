"""The sources themselves, and the page that a reader begins with."""

import ast
import doctest
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for folder in ("python", "tests") for path in (ROOT / folder).rglob("*.py"))
LINES_MAX, FUNCTION_LINES_MAX, COLUMNS_MAX = 400, 70, 110


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert results.attempted > 20 and results.failed == 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= LINES_MAX
    assert max(map(len, lines), default=0) <= COLUMNS_MAX
    assert text.isascii()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines"


def test_every_public_name_is_documented():
    import bitcask
    import bitcaskpy
    import pybitcask

    for module in (bitcask, bitcaskpy, pybitcask):
        for name in module.__all__:
            assert getattr(module, name).__doc__, f"{module.__name__}.{name}"
