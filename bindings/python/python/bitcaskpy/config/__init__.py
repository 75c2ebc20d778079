"""Configuration of bitcaskpy."""
