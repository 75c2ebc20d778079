//! The settings that exist: their names, defaults and meanings.

use super::{SettingOrigin, options};

/// A setting.
#[derive(Debug)]
pub(crate) struct SettingKey {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) about: &'static str,
    /// Says what is wrong with a value.
    pub(crate) check: fn(&str) -> Result<(), String>,
}

/// All settings, in the order in which they are listed.
pub(crate) const KEYS: &[SettingKey] = &[
    SettingKey {
        name: "dir",
        default: "./data",
        about: "directory of the store",
        check: |_| Ok(()),
    },
    SettingKey {
        name: "preset",
        default: "none",
        about: "settings of an older program: none, bitcaskpy or pybitcask",
        check: |text| super::preset::check(text),
    },
    SettingKey {
        name: "sync",
        default: "1s",
        about: "when writes become durable: always, never, or at this interval",
        check: |text| options::sync(text).map(drop),
    },
    SettingKey {
        name: "segment-size",
        default: "128MiB",
        about: "size at which a new segment file is started",
        check: |text| crate::units::size(text).map(drop),
    },
    SettingKey {
        name: "segment-entries",
        default: "unlimited",
        about: "number of entries after which a new segment file is started",
        check: |text| options::entries(text).map(drop),
    },
    SettingKey {
        name: "key-size-limit",
        default: "65535",
        about: "largest key",
        check: |text| crate::units::size(text).map(drop),
    },
    SettingKey {
        name: "value-size-limit",
        default: "4294967295",
        about: "largest value",
        check: |text| crate::units::size(text).map(drop),
    },
    SettingKey {
        name: "compression",
        default: "none",
        about: "how new values are compressed: none, lz4 or zstd, if built in",
        check: |text| options::compression(text).map(drop),
    },
    SettingKey {
        name: "default-ttl",
        default: "none",
        about: "how long keys live that are put without a time to live",
        check: |text| options::lifetime(text).map(drop),
    },
    SettingKey {
        name: "keep-history",
        default: "none",
        about: "how much history merges leave for `bitcask watch`: none, a duration, or a size \
                such as 1GiB",
        check: |text| options::history(text).map(drop),
    },
    SettingKey {
        name: "merge",
        default: "auto",
        about: "whether an open store merges by itself: auto or manual",
        check: |text| options::merges(text).map(drop),
    },
    SettingKey {
        name: "merge-interval",
        default: "3m",
        about: "how often an open store looks for something to merge",
        check: |text| crate::units::duration(text).map(drop),
    },
    SettingKey {
        name: "merge-dead-percent",
        default: "60",
        about: "dead share of a segment, in per cent, that triggers a merge",
        check: |text| options::percent(text).map(drop),
    },
    SettingKey {
        name: "output",
        default: "auto",
        about: "form of the output: auto, table, json or plain",
        check: |text| match text {
            "auto" | "table" | "json" | "plain" => Ok(()),
            _ => Err(OUTPUT.into()),
        },
    },
    SettingKey {
        name: "server",
        default: "http://localhost:8000",
        about: "server that `health`, `ping` and `server stop` ask",
        check: crate::remote::check,
    },
    SettingKey {
        name: "ca-cert",
        default: "none",
        about: "file with the certificates that the server's has to descend from, in PEM form",
        check: |_| Ok(()),
    },
    SettingKey {
        name: "host",
        default: "127.0.0.1",
        about: "address on which `server start` listens",
        check: |_| Ok(()),
    },
    SettingKey {
        name: "port",
        default: "8000",
        about: "port on which `server start` listens",
        check: |text| options::port(text).map(drop),
    },
    SettingKey {
        name: "resp-port",
        default: "none",
        about: "port on which `server start` serves clients of Redis",
        check: |text| options::resp_port(text).map(drop),
    },
    SettingKey {
        name: "databases",
        default: "16",
        about: "how many databases clients of Redis can select",
        check: |text| options::databases(text).map(drop),
    },
    SettingKey {
        name: TOKEN,
        default: "none",
        about: "token that clients of the server have to send, and that this program sends",
        check: |_| Ok(()),
    },
    SettingKey {
        name: "tls-cert",
        default: "none",
        about: "file with the server's certificates for HTTPS",
        check: |_| Ok(()),
    },
    SettingKey {
        name: "tls-key",
        default: "none",
        about: "file with the server's private key for HTTPS",
        check: |_| Ok(()),
    },
    SettingKey {
        name: "body-size-limit",
        default: "64MiB",
        about: "largest body of a request to the server",
        check: |text| crate::units::size(text).map(drop),
    },
    SettingKey {
        name: "connections",
        default: "4096",
        about: "maximum number of connections to the server",
        check: |text| options::limit(text).map(drop),
    },
    SettingKey {
        name: "request-timeout",
        default: "30s",
        about: "how long a request to the server may take",
        check: |text| crate::units::duration(text).map(drop),
    },
    SettingKey {
        name: "requests-per-second",
        default: "unlimited",
        about: "how many requests a client of the server may send per second",
        check: |text| options::limit(text).map(drop),
    },
    SettingKey {
        name: "follow",
        default: "none",
        about: "server whose store `server start` follows",
        check: |_| Ok(()),
    },
    SettingKey {
        name: FOLLOW_TOKEN,
        default: "none",
        about: "token of that server; if none, the token of this one",
        check: |_| Ok(()),
    },
    SettingKey {
        name: "follow-ca",
        default: "none",
        about: "file with the authorities of that server's certificate",
        check: |_| Ok(()),
    },
    SettingKey {
        name: "backup-dir",
        default: "none",
        about: "directory below which clients of the server may make backups",
        check: |_| Ok(()),
    },
];

/// What the setting `output` looks like.
pub(super) const OUTPUT: &str = "expected auto, table, json or plain";

/// The setting that is a secret.
pub(crate) const TOKEN: &str = "token";
/// The token of the server that is followed, which is no less secret.
pub(crate) const FOLLOW_TOKEN: &str = "follow-token";

/// Returns the setting of this name. Underscores count as hyphens.
pub(crate) fn find(name: &str) -> Option<&'static SettingKey> {
    let name = name.replace('_', "-");
    KEYS.iter().find(|key| key.name == name)
}

/// Returns the name of a setting's environment variable.
pub(super) fn variable(name: &str) -> String {
    format!("BITCASK_{}", name.to_uppercase().replace('-', "_"))
}

/// Returns a setting as the environment variables of bitcaskpy have it.
pub(super) fn of_older_programs(
    name: &str,
    text: impl Fn(&str) -> Option<String>,
) -> Option<(String, SettingOrigin)> {
    let variable =
        |name: &str| text(name).map(|value| (value, SettingOrigin::Variable(name.to_owned())));
    match name {
        "sync" => {
            let sync = variable("BITCASKPY_SYNC").filter(|(value, _)| is_true(value));
            let always = sync.map(|(_, origin)| ("always".to_owned(), origin));
            let interval = || variable("BITCASKPY_FSYNC_INTERVAL");
            always.or_else(|| interval().map(|(value, origin)| (sync_of(&value), origin)))
        }
        "segment-size" => variable("BITCASKPY_MAX_SEGMENT_SIZE"),
        "segment-entries" => variable("BITCASKPY_MAX_ENTRIES_PER_SEGMENT"),
        _ => None,
    }
}

/// Returns the policy of an interval in seconds. At intervals of zero, every write is synced.
fn sync_of(interval: &str) -> String {
    let is_zero = interval.trim().parse::<f64>().is_ok_and(|seconds| seconds == 0.0);
    if is_zero { "always".into() } else { format!("{interval}s") }
}

fn is_true(value: &str) -> bool {
    ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str())
}
