//! The rows of the race: names for the command line, titles for the report, and units.

use crate::arguments::Mode;

/// What the figures of a row count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    MegabytesPerSecond,
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Seconds,
    Mebibytes,
    BytesPerKey,
    Percent,
}

impl Unit {
    pub(crate) fn more_is_better(self) -> bool {
        matches!(self, Self::PerSecond | Self::MegabytesPerSecond | Self::Percent)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "per second",
            Self::MegabytesPerSecond => "MB/s",
            Self::Nanoseconds => "ns",
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::Mebibytes => "MiB",
            Self::BytesPerKey => "B per key",
            Self::Percent => "%",
        }
    }
}

/// Which stores take part in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    All,
    /// All but bitcask without checksums, as nothing is read.
    Once,
    Bitcask,
}

/// Rows that are measured with one store after the other, in the same process.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) mode: Mode,
    pub(crate) title: &'static str,
    /// What a reader of the figures has to know.
    pub(crate) note: &'static str,
    pub(crate) who: Who,
    /// Processes that work on the same store, one after the other. One that says that it is ready
    /// is killed.
    pub(crate) steps: &'static [&'static str],
    pub(crate) rows: &'static [Row],
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
}

const fn row(name: &'static str, title: &'static str, unit: Unit) -> Row {
    Row { name, title, unit }
}

const ONE_STEP: &[&str] = &["run"];
/// The first process loads and is killed, the second one opens after that and closes, the third one
/// opens after the close.
const REOPENING: &[&str] = &["load", "killed", "closed"];

pub(crate) const GROUPS: &[Group] = &[
    Group {
        name: "points",
        mode: Mode::Race,
        title: "Single keys",
        note: "Nothing waits for the disk, and everything is in memory. Loads, overwrites and \
               deletes come in batches of 1,000 in the stores that are faster that way; the \
               puts of *mixed* are single. `get_many` reads 16 keys at a time, one by one in \
               stores without such a call. The scan returns all pairs in any order.",
        who: Who::All,
        steps: ONE_STEP,
        rows: &[
            row("load", "load, random order", Unit::PerSecond),
            row("settle", "settling after the load", Unit::Seconds),
            row("scan", "full scan", Unit::PerSecond),
            row("get", "get, uniform", Unit::PerSecond),
            row("get-2", "get, uniform, 2 threads", Unit::PerSecond),
            row("zipf", "get, Zipf 0.99", Unit::PerSecond),
            row("miss", "get, miss", Unit::PerSecond),
            row("get-many", "get_many, 16 keys", Unit::PerSecond),
            row("mixed-2", "mixed 50/50, 2 threads", Unit::PerSecond),
            row("overwrite", "overwrite, random order", Unit::PerSecond),
            row("delete", "delete, random order", Unit::PerSecond),
        ],
    },
    Group {
        name: "in-order",
        mode: Mode::Race,
        title: "Loading in key order",
        note: "",
        who: Who::Once,
        steps: ONE_STEP,
        rows: &[row("load-in-order", "load, key order", Unit::PerSecond)],
    },
    Group {
        name: "rewrites",
        mode: Mode::Race,
        title: "Overwriting everything three times",
        note: "Stores that merge or compact do so meanwhile. *Disk and memory* below shows the \
               space that is left once the store has settled.",
        who: Who::Once,
        steps: ONE_STEP,
        rows: &[row("rewrite", "overwrite everything 3 times", Unit::PerSecond)],
    },
    Group {
        name: "durable",
        mode: Mode::Race,
        title: "Durable writes",
        note: "Each put or batch is on the disk when it returns. Parity-db cannot do that. Sled \
               calls `sync_file_range`, which guarantees less than the `fdatasync` of the \
               others.",
        who: Who::Once,
        steps: ONE_STEP,
        rows: &[
            row("durable-put", "durable put, 1 thread", Unit::PerSecond),
            row("durable-put-8", "durable put, 8 threads", Unit::PerSecond),
            row("durable-batch", "durable batch of 1,000, keys", Unit::PerSecond),
        ],
    },
    Group {
        name: "large",
        mode: Mode::Race,
        title: "Values of 4 KiB",
        note: "A sixteenth of the keys.",
        who: Who::All,
        steps: ONE_STEP,
        rows: &[
            row("large-load", "4 KiB: load, random order", Unit::PerSecond),
            row("large-overwrite", "4 KiB: overwrite", Unit::PerSecond),
            row("large-get", "4 KiB: get, uniform", Unit::PerSecond),
        ],
    },
    Group {
        name: "ordered",
        mode: Mode::Race,
        title: "Order and snapshots, loaded in random order",
        note: "Sled has no snapshots; its figure is a get.",
        who: Who::All,
        steps: ONE_STEP,
        rows: &[
            row("ordered-first", "first prefix scan after the load", Unit::Milliseconds),
            row("ordered-scan", "ordered scan, a pair", Unit::Nanoseconds),
            row("ordered-back", "reverse scan, a pair", Unit::Nanoseconds),
            row("ordered-keys", "ordered scan of keys, a key", Unit::Nanoseconds),
            row("ordered-prefix", "prefix scan of 100 keys, a scan", Unit::Nanoseconds),
            row("ordered-snapshot", "snapshot with one get", Unit::Nanoseconds),
        ],
    },
    Group {
        name: "sorted",
        mode: Mode::Race,
        title: "Order, loaded in key order",
        note: "",
        who: Who::All,
        steps: ONE_STEP,
        rows: &[
            row("sorted-scan", "in order: ordered scan, a pair", Unit::Nanoseconds),
            row("sorted-prefix", "in order: prefix scan of 100 keys", Unit::Nanoseconds),
        ],
    },
    Group {
        name: "merged",
        mode: Mode::Race,
        title: "Order, loaded in random order and merged",
        note: "",
        who: Who::Bitcask,
        steps: ONE_STEP,
        rows: &[
            row("merged-scan", "merged: ordered scan, a pair", Unit::Nanoseconds),
            row("merged-prefix", "merged: prefix scan of 100 keys", Unit::Nanoseconds),
        ],
    },
    Group {
        name: "ycsb",
        mode: Mode::Race,
        title: "YCSB",
        note: "The core workloads of Cooper et al., *Benchmarking cloud serving systems with \
               YCSB* (2010), in one thread, on keys and values of the size of the other rows. \
               A: 50 % reads, 50 % updates. B: 95 % reads, 5 % updates. C: reads only. D: 95 % \
               reads of the latest keys, 5 % inserts. F: 50 % reads, 50 % read-modify-writes. Keys \
               are drawn from a scrambled Zipf distribution (0.99).",
        who: Who::All,
        steps: ONE_STEP,
        rows: &[
            row("ycsb-a", "A: update heavy", Unit::PerSecond),
            row("ycsb-b", "B: read mostly", Unit::PerSecond),
            row("ycsb-c", "C: read only", Unit::PerSecond),
            row("ycsb-f", "F: read-modify-write", Unit::PerSecond),
            row("ycsb-d", "D: read latest", Unit::PerSecond),
        ],
    },
    Group {
        name: "ranges",
        mode: Mode::Race,
        title: "YCSB E: short ranges",
        note: "95 % scans of 1 to 100 pairs, 5 % inserts, in a store that was loaded in random \
               order and has been scanned once.",
        who: Who::All,
        steps: ONE_STEP,
        rows: &[row("ycsb-e", "E: short ranges", Unit::PerSecond)],
    },
    Group {
        name: "reopen",
        mode: Mode::Race,
        title: "Opening until the first get",
        note: "The process was killed (`kill -9`) after a sync. *Keys kept* is the share of a \
               sample of keys that was found afterwards; parity-db has no call that syncs. The \
               files are in the page cache.",
        who: Who::Once,
        steps: REOPENING,
        rows: &[
            row("open-closed", "open after a close", Unit::Milliseconds),
            row("open-killed", "open after a kill", Unit::Milliseconds),
            row("kept", "keys kept after the kill", Unit::Percent),
        ],
    },
    Group {
        name: "space",
        mode: Mode::Race,
        title: "Disk and memory",
        note: "Anonymous memory is that of the process after the load has settled, less what \
               the process had before the store was opened; it includes caches. File-backed \
               memory is mapped page cache, which the kernel can drop.",
        who: Who::Once,
        // The rows are by-products of other groups.
        steps: &[],
        rows: &[
            row("disk-loaded", "disk after the load", Unit::Mebibytes),
            row("disk-rewritten", "disk after overwriting 3 times", Unit::Mebibytes),
            row("memory-anonymous", "anonymous memory", Unit::BytesPerKey),
            row("memory-file", "file-backed memory", Unit::BytesPerKey),
        ],
    },
    Group {
        name: "latency",
        mode: Mode::Latency,
        title: "Durations of single calls",
        note: "One thread puts and gets in turns, another one syncs every second, and merges \
               run. The first quarter of the puts are of new keys in random order; the others \
               overwrite. *Nothing* times a fixed calculation, and shows what the machine does \
               by itself.",
        who: Who::Once,
        steps: ONE_STEP,
        rows: &[
            row("new-p50", "put of a new key, p50", Unit::Microseconds),
            row("new-p99", "put of a new key, p99", Unit::Microseconds),
            row("new-p99.9", "put of a new key, p99.9", Unit::Microseconds),
            row("new-max", "put of a new key, longest", Unit::Microseconds),
            row("put-p50", "overwrite, p50", Unit::Microseconds),
            row("put-p99", "overwrite, p99", Unit::Microseconds),
            row("put-p99.9", "overwrite, p99.9", Unit::Microseconds),
            row("put-max", "overwrite, longest", Unit::Microseconds),
            row("get-p50", "get, p50", Unit::Microseconds),
            row("get-p99", "get, p99", Unit::Microseconds),
            row("get-p99.9", "get, p99.9", Unit::Microseconds),
            row("get-max", "get, longest", Unit::Microseconds),
            row("nothing-p50", "nothing, p50", Unit::Microseconds),
            row("nothing-p99", "nothing, p99", Unit::Microseconds),
            row("nothing-p99.9", "nothing, p99.9", Unit::Microseconds),
            row("nothing-max", "nothing, longest", Unit::Microseconds),
        ],
    },
    Group {
        name: "scale",
        mode: Mode::Scale,
        title: "Growth",
        note: "Bitcask alone. Each put of the load is timed. Memory is anonymous memory. The \
               process is killed after the load and a sync; the store is opened, closed, and \
               opened again. Then a quarter of the keys is overwritten, and everything is \
               merged.",
        who: Who::Bitcask,
        steps: REOPENING,
        rows: &[
            row("scale-load", "load, random order", Unit::PerSecond),
            row("scale-put-p99.9", "put during the load, p99.9", Unit::Microseconds),
            row("scale-put-max", "longest put of the load", Unit::Milliseconds),
            row("scale-get", "get, uniform", Unit::PerSecond),
            row("scale-memory", "memory, loaded", Unit::BytesPerKey),
            row("scale-memory-mean", "memory, mean of the load", Unit::BytesPerKey),
            row("scale-memory-worst", "memory, worst of the second half", Unit::BytesPerKey),
            row("scale-disk", "disk, loaded", Unit::BytesPerKey),
            row("scale-open-killed", "first get after a kill", Unit::Milliseconds),
            row("scale-len-killed", "all keys known after a kill", Unit::Milliseconds),
            row("scale-open-closed", "first get after a close", Unit::Milliseconds),
            row("scale-len-closed", "all keys known after a close", Unit::Milliseconds),
            row("scale-merge", "merge, live data", Unit::MegabytesPerSecond),
        ],
    },
    Group {
        name: "limited",
        mode: Mode::MemoryLimit,
        title: "Larger than memory",
        note: "A cgroup limits the memory of the process, page cache included. Each figure is \
               the rate until all is done or the time is up. A store that has not loaded \
               everything by then is filled up in key order, untimed.",
        who: Who::Once,
        steps: ONE_STEP,
        rows: &[
            row("limited-load", "load, random order", Unit::PerSecond),
            row("limited-get", "get, uniform", Unit::PerSecond),
            row("limited-get-2", "get, uniform, 2 threads", Unit::PerSecond),
            row("limited-zipf", "get, Zipf 0.99", Unit::PerSecond),
            row("limited-miss", "get, miss", Unit::PerSecond),
            row("limited-many", "get_many, 16 keys", Unit::PerSecond),
            row("limited-scan", "full scan", Unit::PerSecond),
            row("limited-ordered", "ordered scan", Unit::PerSecond),
            row("limited-overwrite", "overwrite, random order", Unit::PerSecond),
            row("limited-batch", "overwrite, batches of 1000", Unit::PerSecond),
            row("limited-delete", "delete, random order", Unit::PerSecond),
            row("limited-merge", "merge everything", Unit::Seconds),
        ],
    },
];

/// Rows that are measured by another group than the one in which they are shown.
const BY_PRODUCTS: &[(&str, &[&str])] = &[
    ("points", &["disk-loaded", "memory-anonymous", "memory-file"]),
    ("rewrites", &["disk-rewritten"]),
];

impl Group {
    /// Returns the names of the rows that this group measures.
    pub(crate) fn measured(&self) -> impl Iterator<Item = &'static str> {
        let by_products = BY_PRODUCTS.iter().find(|(name, _)| *name == self.name);
        let by_products = by_products.map_or(&[] as &[_], |(_, rows)| rows);
        self.rows.iter().map(|row| row.name).chain(by_products.iter().copied())
    }
}

/// Returns the group and the row of a name.
pub(crate) fn find(name: &str) -> (&'static Group, &'static Row) {
    let rows = GROUPS.iter().flat_map(|group| group.rows.iter().map(move |row| (group, row)));
    let mut found = rows.filter(|(_, row)| row.name == name);
    found.next().unwrap_or_else(|| panic!("there is no row {name}"))
}

pub(crate) fn of_mode(mode: Mode) -> impl Iterator<Item = &'static Group> {
    GROUPS.iter().filter(move |group| group.mode == mode)
}
