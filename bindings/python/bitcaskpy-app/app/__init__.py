"""The module bitcaskpy under the name that its later versions had."""

import importlib
import sys

import bitcaskpy
from bitcaskpy import BitcaskStore, close_store, open_store

__version__ = bitcaskpy.__version__

__all__ = ["BitcaskStore", "close_store", "open_store"]

_MODULES = {
    "core": "",
    "core.config": ".config",
    "core.config.defaults": ".config.defaults",
    "core.store": ".store",
    "core.store.bitcask_store": ".store.bitcask_store",
    "core.store.entry": ".store.entry",
    "core.store.hash_table": ".store.hash_table",
    "core.store.segment": ".store.segment",
    "core.store.segment_manager": ".store.segment_manager",
    "client": ".client",
    "client.client": ".client.client",
}

for _old, _new in _MODULES.items():
    sys.modules[f"{__name__}.{_old}"] = importlib.import_module(f"bitcaskpy{_new}")

core = sys.modules[f"{__name__}.core"]
client = sys.modules[f"{__name__}.client"]
