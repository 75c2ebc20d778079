//! Parameters of Redis that clients and test suites ask for, and that have no effect here.

/// The parameters, with their defaults.
pub(super) const SHOWN: &[(&str, &str)] = &[
    ("acllog-max-len", "128"),
    ("active-expire-effort", "1"),
    ("activedefrag", "no"),
    ("activerehashing", "yes"),
    ("aof-load-truncated", "yes"),
    ("aof-timestamp-enabled", "no"),
    ("aof-use-rdb-preamble", "yes"),
    ("appendfsync", "everysec"),
    ("appendonly", "no"),
    ("auto-aof-rewrite-min-size", "67108864"),
    ("auto-aof-rewrite-percentage", "100"),
    ("bind", "127.0.0.1"),
    ("busy-reply-threshold", "5000"),
    ("client-output-buffer-limit", "normal 0 0 0 slave 0 0 0 pubsub 33554432 0 0"),
    ("client-query-buffer-limit", "1073741824"),
    ("cluster-enabled", "no"),
    ("crash-log-enabled", "yes"),
    ("crash-memcheck-enabled", "yes"),
    ("daemonize", "no"),
    ("dbfilename", ""),
    ("dir", "."),
    ("disable-thp", "yes"),
    ("dynamic-hz", "yes"),
    ("enable-debug-command", "yes"),
    ("enable-module-command", "no"),
    ("enable-protected-configs", "no"),
    ("hash-max-listpack-entries", "512"),
    ("hash-max-listpack-value", "64"),
    ("hash-max-ziplist-entries", "512"),
    ("hash-max-ziplist-value", "64"),
    ("hz", "10"),
    ("io-threads", "1"),
    ("key-load-delay", "0"),
    ("latency-monitor-threshold", "0"),
    ("latency-tracking", "no"),
    ("latency-tracking-info-percentiles", "50 99 99.9"),
    ("lazyfree-lazy-eviction", "no"),
    ("lazyfree-lazy-expire", "no"),
    ("lazyfree-lazy-server-del", "no"),
    ("lazyfree-lazy-user-del", "no"),
    ("lazyfree-lazy-user-flush", "no"),
    ("lfu-decay-time", "1"),
    ("lfu-log-factor", "10"),
    ("list-compress-depth", "0"),
    ("list-max-listpack-size", "-2"),
    ("list-max-ziplist-size", "-2"),
    ("logfile", ""),
    ("loglevel", "notice"),
    ("lua-time-limit", "5000"),
    ("maxmemory", "0"),
    ("maxmemory-clients", "0"),
    ("maxmemory-eviction-tenacity", "10"),
    ("maxmemory-policy", "noeviction"),
    ("maxmemory-samples", "5"),
    ("min-replicas-max-lag", "10"),
    ("min-replicas-to-write", "0"),
    ("min-slaves-to-write", "0"),
    ("no-appendfsync-on-rewrite", "no"),
    ("oom-score-adj", "no"),
    ("port", "0"),
    ("protected-mode", "no"),
    ("rdb-key-save-delay", "0"),
    ("rdb-save-incremental-fsync", "yes"),
    ("rdbchecksum", "yes"),
    ("rdbcompression", "yes"),
    ("repl-backlog-size", "1048576"),
    ("repl-backlog-ttl", "3600"),
    ("repl-disable-tcp-nodelay", "no"),
    ("repl-diskless-load", "disabled"),
    ("repl-diskless-sync", "yes"),
    ("repl-diskless-sync-delay", "5"),
    ("repl-ping-replica-period", "10"),
    ("repl-timeout", "60"),
    ("replica-announced", "yes"),
    ("replica-lazy-flush", "no"),
    ("replica-priority", "100"),
    ("replica-read-only", "yes"),
    ("replica-serve-stale-data", "yes"),
    ("sanitize-dump-payload", "no"),
    ("save", ""),
    ("set-max-intset-entries", "512"),
    ("set-max-listpack-entries", "128"),
    ("shutdown-timeout", "10"),
    ("slave-lazy-flush", "no"),
    ("slave-priority", "100"),
    ("slave-read-only", "yes"),
    ("slave-serve-stale-data", "yes"),
    ("stop-writes-on-bgsave-error", "yes"),
    ("stream-node-max-bytes", "4096"),
    ("stream-node-max-entries", "100"),
    ("tcp-keepalive", "300"),
    ("tls-port", "0"),
    ("unixsocket", ""),
    ("zset-max-listpack-entries", "128"),
    ("zset-max-listpack-value", "64"),
    ("zset-max-ziplist-entries", "128"),
    ("zset-max-ziplist-value", "64"),
];

/// The parameters among them that are sizes in memory.
const SIZES: &[&str] = &[
    "auto-aof-rewrite-min-size",
    "client-query-buffer-limit",
    "maxmemory",
    "maxmemory-clients",
    "repl-backlog-size",
    "stream-node-max-bytes",
];

/// Names of sizes, and how many bytes they are.
const UNITS: &[(&str, i64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1_000),
    ("kb", 1 << 10),
    ("m", 1_000_000),
    ("mb", 1 << 20),
    ("g", 1_000_000_000),
    ("gb", 1 << 30),
];

/// Returns how a value is shown, or why it does not suit the parameter: a number has to stay a
/// number, and a switch a switch.
pub(super) fn suited(name: &str, value: &[u8]) -> Result<String, &'static str> {
    let value = String::from_utf8_lossy(value).into_owned();
    let default = SHOWN.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value);
    let is_number = |text: &str| text.parse::<i64>().is_ok();
    let is_share = name == "maxmemory-clients" && value.strip_suffix('%').is_some_and(is_number);
    if SIZES.contains(&name) && !is_share {
        return size(&value).ok_or("argument must be a memory value");
    }
    if is_number(default) && !is_share && !is_number(&value) {
        return Err("argument couldn't be parsed into an integer");
    }
    let is_switch = |text: &str| ["yes", "no"].iter().any(|it| text.eq_ignore_ascii_case(it));
    // This one has two more values.
    if is_switch(default) && name != "oom-score-adj" && !is_switch(&value) {
        return Err("argument must be 'yes' or 'no'");
    }
    Ok(value)
}

fn size(text: &str) -> Option<String> {
    let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits)?.to_ascii_lowercase();
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let number = digits.parse::<i64>().ok().filter(|number| *number >= 0)?;
    Some(number.checked_mul(*bytes)?.to_string())
}
