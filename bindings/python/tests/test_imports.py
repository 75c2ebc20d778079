"""Stores that pybitcask and Basho's bitcask wrote."""

import json
import struct

import pytest

import bitcask
from pybitcask import Bitcask

from conftest import contents


def json_record(key, value, timestamp, **more):
    return json.dumps({"key": key, "value": value, "timestamp": timestamp, **more}).encode() + b"\n"


def message(key, value, timestamp):
    """Returns a record in protocol buffers. Sizes and the time are small."""

    def field(tag, bytes):
        return bytes_of(tag) + varint(len(bytes)) + bytes

    def varint(number):
        out = b""
        while number > 127:
            out, number = out + bytes_of(number & 127 | 128), number >> 7
        return out + bytes_of(number)

    bytes_of = lambda byte: bytes([byte])
    body = field(0x0A, key.encode())
    if value is not None:
        body += field(0x12, value.encode())
    body += b"\x18" + varint(timestamp)
    if value is None:
        body += b"\x20\x01"
    return struct.pack(">I", len(body)) + body


def test_a_directory_of_pybitcask_is_imported_once(tmp_path):
    (tmp_path / "data_9.db").write_bytes(
        b"\2" + json_record("victim", 1, 1000) + json_record("a", {"b": [None]}, 1000)
    )
    (tmp_path / "data_10.db").write_bytes(
        b"\1" + message("text", '"\\u00fc"', 1000) + message("none", "null", 1000)
    )
    (tmp_path / "data_11.db").write_bytes(b"\1" + message("victim", None, 1001))
    before = contents(tmp_path)
    with Bitcask(tmp_path) as store:
        assert store.list_keys() == ["a", "none", "text"]
        assert (store.get("a"), store.get("text"), store.get("none")) == (
            {"b": [None]}, "\u00fc", None,
        )
        store.delete("a")
    assert contents(tmp_path) == before
    with Bitcask(tmp_path) as store:
        assert store.list_keys() == ["none", "text"]


@pytest.mark.parametrize("name", ["pybitcask-json", "pybitcask-protobuf"])
def test_a_store_of_pybitcask_itself_opens(fixture, name):
    directory, expected = fixture(name)
    before = contents(directory)
    pairs = json.loads(expected.read_text(encoding="utf-8"))
    with Bitcask(directory) as store:
        assert {key: store.get(key) for key in store.list_keys()} == pairs
    assert contents(directory) == before


def test_a_store_of_basho_is_imported(fixture, db):
    directory, expected = fixture("basho", "expected.txt")
    report = db.import_from("basho", directory)
    decode = lambda text: bytes.fromhex("" if text == "-" else text)
    lines = (line.split(" ") for line in expected.read_text().splitlines())
    assert db == {decode(key): decode(value) for key, value in lines}
    assert report["is_complete"] and report["written"] == len(db)
    assert db.import_from("basho", directory)["written"] == 0
    with pytest.raises(bitcask.InvalidInput, match="cannot import from"):
        db.import_from("prologic", directory)
    with pytest.raises(bitcask.InvalidInput, match="there is no importer"):
        db.import_from("redis", directory)
