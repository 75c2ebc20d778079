"""The configuration of pybitcask: where the store lies by default.

It is read when it is needed, and written only when a setting is changed.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any, Optional


class BitcaskConfig:
    """The configuration file of this user."""

    def __init__(self) -> None:
        self.system = platform.system().lower()
        self.config_data: dict[str, Any] = {
            "data_dir": str(self.default_data_dir),
            "debug_mode": False,
        }
        try:
            found = json.loads(self.config_file.read_text(encoding="utf-8"))
            self.config_data.update(found)
        except FileNotFoundError:
            pass
        # No directory of the user is a `RuntimeError`, and another JSON value a `TypeError`.
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            print(f"Warning: Could not load config file: {error}")

    @property
    def default_data_dir(self) -> Path:
        """Where the store lies unless the file says otherwise."""
        if self.system == "darwin":
            return Path.home() / "Library" / "Application Support" / "pybitcask"
        if self.system == "linux":
            return Path("/var/lib/pybitcask")
        return Path.home() / ".pybitcask"

    @property
    def config_dir(self) -> Path:
        """Where the file lies."""
        if self.system == "darwin":
            return Path.home() / "Library" / "Preferences" / "pybitcask"
        if self.system == "linux":
            return Path.home() / ".config" / "pybitcask"
        return Path.home() / ".pybitcask"

    @property
    def config_file(self) -> Path:
        """The file."""
        return self.config_dir / "config.json"

    def get_data_dir(self, override_dir: Optional[str] = None) -> Path:
        """Returns the store's directory, unless another one is given."""
        return Path(override_dir or self.config_data["data_dir"])

    def get_debug_mode(self) -> bool:
        """Returns whether the debug mode is on."""
        return bool(self.config_data["debug_mode"])

    def set_data_dir(self, data_dir: str) -> None:
        """Changes the store's directory, in the file too."""
        self._set("data_dir", os.fspath(data_dir))

    def set_debug_mode(self, debug_mode: bool) -> None:
        """Changes the debug mode, in the file too."""
        self._set("debug_mode", debug_mode)

    def _set(self, name: str, value: Any) -> None:
        self.config_data[name] = value
        self.config_dir.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.config_data, indent=2)
        self.config_file.write_text(text, encoding="utf-8")


config = BitcaskConfig()
