//! Commands of Redis that this server does not have, so that a client learns why.

/// Commands, by what they work on.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    (
        "lists",
        &[
            "blmove", "blmpop", "blpop", "brpop", "brpoplpush", "lindex", "linsert", "llen",
            "lmove", "lmpop", "lpop", "lpos", "lpush", "lpushx", "lrange", "lrem", "lset", "ltrim",
            "rpop", "rpoplpush", "rpush", "rpushx", "sort", "sort_ro",
        ],
    ),
    (
        "sets",
        &[
            "sadd", "scard", "sdiff", "sdiffstore", "sinter", "sintercard", "sinterstore",
            "sismember", "smembers", "smismember", "smove", "spop", "srandmember", "srem", "sscan",
            "sunion", "sunionstore",
        ],
    ),
    (
        "sorted sets",
        &[
            "bzmpop", "bzpopmax", "bzpopmin", "geoadd", "geodist", "geohash", "geopos",
            "georadius", "georadius_ro", "georadiusbymember", "georadiusbymember_ro", "geosearch",
            "geosearchstore", "zadd", "zcard", "zcount", "zdiff", "zdiffstore", "zincrby",
            "zinter", "zintercard", "zinterstore", "zlexcount", "zmpop", "zmscore", "zpopmax",
            "zpopmin", "zrandmember", "zrange", "zrangebylex", "zrangebyscore", "zrangestore",
            "zrank", "zrem", "zremrangebylex", "zremrangebyrank", "zremrangebyscore", "zrevrange",
            "zrevrangebylex", "zrevrangebyscore", "zrevrank", "zscan", "zscore", "zunion",
            "zunionstore",
        ],
    ),
    (
        "streams",
        &[
            "xack", "xadd", "xautoclaim", "xclaim", "xdel", "xgroup", "xinfo", "xlen", "xpending",
            "xrange", "xread", "xreadgroup", "xrevrange", "xsetid", "xtrim",
        ],
    ),
    (
        "scripts",
        &["eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro"],
    ),
    (
        "bitmaps or counters of distinct values",
        &[
            "bitcount", "bitfield", "bitfield_ro", "bitop", "bitpos", "getbit", "pfadd", "pfcount",
            "pfdebug", "pfmerge", "pfselftest", "setbit",
        ],
    ),
    ("expiries of single fields", &["hexpire", "hexpireat", "hpexpire", "hpexpireat", "hpersist", "hpttl", "httl"]),
    ("cluster", &["asking", "cluster", "readonly", "readwrite", "spublish", "ssubscribe", "sunsubscribe"]),
    ("replication in this protocol", &["failover", "psync", "replconf", "replicaof", "slaveof", "sync"]),
    ("access control lists", &["acl"]),
    ("modules", &["module"]),
    ("move between databases other than COPY", &["migrate", "move", "swapdb"]),
    ("latency monitor", &["latency"]),
    ("longest common subsequences", &["lcs"]),
];

/// Returns what a command works on that this server does not have. The name is in lower case.
pub(in crate::resp) fn unsupported(name: &str) -> Option<&'static str> {
    let found = UNSUPPORTED.iter().find(|(_, names)| names.contains(&name));
    found.map(|(what, _)| *what)
}
