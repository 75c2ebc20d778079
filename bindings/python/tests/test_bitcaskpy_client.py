"""The client of bitcaskpy's server, and what it says when something else answers, or nothing."""

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from bitcaskpy.client import (
    BitcaskClient,
    BitcaskClientError,
    BitcaskConnectionError,
    BitcaskServerError,
)


class Answers(BaseHTTPRequestHandler):
    """A server of one key, which notes the ids of requests."""

    ids: list = []

    def answer(self):
        self.ids.append(self.headers["x-request-id"])
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        status, answer = 200, {"status": "success", "path": self.path, "body": body}
        if self.path == "/kv/there" and self.command == "GET":
            answer = {"key": "there", "value": "v", "found": True}
        elif self.path == "/kv/absent":
            answer = {"key": "absent", "value": None, "found": False}
        elif self.path == "/kv/bad":
            status, answer = 500, {"detail": "it is broken"}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_DELETE = answer

    def log_message(self, *_):
        pass


def test_the_client(monkeypatch):
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            monkeypatch.setenv("BITCASK_SERVER", url)
            client = BitcaskClient()
            answer, request_id = client.put("a/b", "v")
            assert answer["path"] == "/kv/a%2Fb" and answer["body"] == {"value": "v"}
            assert Answers.ids[-1] == request_id
            assert client.get("there")[0] == "v" and client.get("absent")[0] is None
            assert client.delete("there")[0]["status"] == "success"
            assert client.health()[0]["path"] == "/health"
            assert client.list_keys()[0]["path"] == "/kv"
            assert client.ping() is True
            with pytest.raises(BitcaskServerError, match="it is broken"):
                client.get("bad")
        finally:
            server.shutdown()
            thread.join()
    assert BitcaskClient(url).ping() is False
    with pytest.raises(BitcaskConnectionError):
        BitcaskClient(url, timeout=5).get("there")


@contextmanager
def answering(answer):
    """A server that answers each request with the same bytes. Returns its address."""

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


# Exceptions of `http.client` came through, which are neither `BitcaskClientError` nor `OSError`, also
# from `ping`, which has to return a flag.
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"-ERR unknown command\r\n", id="another protocol"),
        pytest.param(HEAD % 100 + b'{"found":', id="an answer that ends early"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_server_that_does_not_speak_http_is_none(answer):
    with answering(answer) as url:
        client = BitcaskClient(url, timeout=60)
        assert client.ping() is False
        with pytest.raises(BitcaskConnectionError, match="does not answer"):
            client.get("there")


@pytest.mark.parametrize("body", [b"hello", b"[1]", b"\xff"])
def test_an_answer_that_is_no_object_of_json_is_an_error(body):
    with answering(HEAD % len(body) + body) as url:
        client = BitcaskClient(url, timeout=60)
        assert client.ping() is False
        with pytest.raises(BitcaskClientError, match="answers with"):
            client.get("there")


def test_a_refusal_is_reported_although_its_reason_ends_early():
    head = b"HTTP/1.1 503 Busy\r\ncontent-length: 100\r\n\r\n"
    with answering(head + b'{"detail"') as url:
        with pytest.raises(BitcaskServerError, match="503"):
            BitcaskClient(url, timeout=60).get("there")


# The address was reported as that of a server that does not answer, or that answers without JSON.
@pytest.mark.parametrize("address", ["localhost:8000", "localhost", "redis://localhost:6379"])
def test_an_address_without_http_is_named(address):
    client = BitcaskClient(address)
    assert client.ping() is False
    with pytest.raises(BitcaskConnectionError, match=f"{address}/ .*begin with http"):
        client.get("there")


def test_an_address_that_is_none_is_an_error():
    with pytest.raises(BitcaskConnectionError, match="does not answer"):
        BitcaskClient("http://localhost:port").get("there")
