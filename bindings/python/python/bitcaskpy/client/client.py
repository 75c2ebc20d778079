"""A client of bitcaskpy's HTTP server, without packages that do not come with Python."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
import uuid
from http.client import HTTPException
from typing import Any, Optional
from urllib.parse import quote


class BitcaskClientError(Exception):
    """The base of the client's exceptions."""


class BitcaskConnectionError(BitcaskClientError):
    """No server has answered, or not in time."""


class BitcaskServerError(BitcaskClientError):
    """The server has refused the request, or has failed."""


class BitcaskClient:
    """Calls a server. Each call but ``ping`` returns its result and the id of its request."""

    def __init__(self, base_url: Optional[str] = None, timeout: float = 30) -> None:
        base_url = base_url or os.environ.get("BITCASK_SERVER") or "http://localhost:8000"
        self.base_url = base_url.rstrip("/") + "/"
        self.timeout = timeout

    def put(self, key: str, value: str) -> tuple[dict[str, Any], str]:
        """Stores a value under a key."""
        return self._call("PUT", _path(key), {"value": value})

    def get(self, key: str) -> tuple[Optional[str], str]:
        """Returns the value of a key, or ``None`` if it is absent."""
        answer, request_id = self._call("GET", _path(key))
        return (answer.get("value") if answer.get("found") else None), request_id

    def delete(self, key: str) -> tuple[dict[str, Any], str]:
        """Removes a key."""
        return self._call("DELETE", _path(key))

    def health(self) -> tuple[dict[str, Any], str]:
        """Returns the server's state and version."""
        return self._call("GET", "health")

    def list_keys(self) -> tuple[dict[str, Any], str]:
        """Returns the server's listing of keys."""
        return self._call("GET", "kv")

    def ping(self) -> bool:
        """Returns whether a server answers."""
        try:
            self.health()
        except BitcaskClientError:
            return False
        return True

    def _call(
        self, method: str, path: str, body: Optional[dict[str, Any]] = None
    ) -> tuple[dict[str, Any], str]:
        request_id = str(uuid.uuid4())
        headers = {"x-request-id": request_id, "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        if not self.base_url.lower().startswith(("http://", "https://")):
            raise BitcaskConnectionError(
                f"{self.base_url} is no address of a server: it has to begin with http:// or https://"
            )
        request = urllib.request.Request(self.base_url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise BitcaskServerError(f"Server error: {_detail(error)}") from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise BitcaskConnectionError(f"{self.base_url} does not answer: {reason}") from error
        except ValueError as error:
            raise BitcaskClientError(f"{self.base_url} answers without JSON: {error}") from error
        if not isinstance(answer, dict):
            raise BitcaskClientError(f"{self.base_url} answers with something else than an object")
        return answer, request_id


def _path(key: str) -> str:
    return "kv/" + quote(key, safe="")


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return str(error)
