"""The defaults of bitcaskpy's segments."""

# Size in bytes from which a segment is full.
DEFAULT_MAX_SEGMENT_SIZE = 10 * 1024 * 1024
# Number of entries from which a segment is full.
DEFAULT_MAX_SEGMENT_ENTRIES = 10_000
# Seconds between two writes of a segment's hint file.
DEFAULT_METADATA_SYNC_INTERVAL_SECONDS = 60
