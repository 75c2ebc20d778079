"""The client of bitcaskpy's HTTP server, and of `bitcask server`, which speaks the same."""

from .client import BitcaskClient, BitcaskClientError, BitcaskConnectionError, BitcaskServerError

__all__ = [
    "BitcaskClient",
    "BitcaskClientError",
    "BitcaskConnectionError",
    "BitcaskServerError",
]
