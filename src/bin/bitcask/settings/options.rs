//! From settings to the options with which a store is opened.

use std::time::Duration;

use bitcask::{AutoMerge, Compression, History, MergePolicy, Options, SyncPolicy};

use super::Settings;
use crate::failure::Failure;
use crate::units;

impl Settings {
    /// Returns the options with which the settings open a store.
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        let options = Options::new()
            .sync_policy(self.parsed("sync", sync)?)
            .segment_size(self.parsed("segment-size", units::size)?)
            .segment_entries(self.parsed("segment-entries", entries)?)
            .key_size_limit(self.parsed("key-size-limit", units::size)?)
            .value_size_limit(self.parsed("value-size-limit", units::size)?)
            .compression(self.parsed("compression", compression)?)
            .default_ttl(self.parsed("default-ttl", lifetime)?)
            .keep_history(self.parsed("keep-history", history)?);
        let trigger = self.parsed("merge-dead-percent", percent)?;
        let auto = AutoMerge::new().check_interval(self.parsed("merge-interval", units::duration)?);
        // What triggers a merge has to be merged by it.
        let dead = auto.get_dead_percent().min(trigger);
        let auto = auto.trigger_dead_percent(trigger).dead_percent(dead);
        let by_itself = self.parsed("merge", merges)?;
        let policy = if by_itself { MergePolicy::Auto(auto) } else { MergePolicy::Manual };
        Ok(options.merge_policy(policy))
    }
}

pub(super) fn sync(text: &str) -> Result<SyncPolicy, String> {
    match text {
        "always" => Ok(SyncPolicy::Always),
        "never" => Ok(SyncPolicy::Never),
        interval => match units::duration(interval) {
            Ok(interval) if interval >= Duration::from_millis(1) => {
                Ok(SyncPolicy::Interval(interval))
            }
            _ => Err("expected always, never, or a duration of at least 1ms, such as 5s".into()),
        },
    }
}

pub(super) fn entries(text: &str) -> Result<u64, String> {
    match text {
        "unlimited" => Ok(u64::MAX),
        number => match number.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err("expected a number from 1, or unlimited".into()),
        },
    }
}

pub(super) fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "none" => Ok(Compression::None),
        #[cfg(feature = "lz4")]
        "lz4" => Ok(Compression::lz4()),
        #[cfg(feature = "zstd")]
        "zstd" => Ok(Compression::zstd()),
        codec if ["lz4", "zstd"].contains(&codec) => {
            Err(format!("this program was built without the feature `{codec}`"))
        }
        _ => Err("expected none, lz4 or zstd".into()),
    }
}

pub(super) fn lifetime(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "none" => Ok(None),
        duration => units::duration(duration).map(Some),
    }
}

pub(super) fn history(text: &str) -> Result<History, String> {
    let history = match text {
        "none" => return Ok(History::None),
        bytes if bytes.ends_with(['b', 'B']) => History::LastBytes(units::size(bytes)?),
        duration => History::Last(units::duration(duration)?),
    };
    let is_zero = matches!(history, History::LastBytes(0) | History::Last(Duration::ZERO));
    if is_zero { Err("it must be more than zero, or none".into()) } else { Ok(history) }
}

/// Returns whether an open store merges by itself.
pub(super) fn merges(text: &str) -> Result<bool, String> {
    match text {
        "auto" => Ok(true),
        "manual" => Ok(false),
        _ => Err("expected auto or manual".into()),
    }
}

pub(super) fn percent(text: &str) -> Result<u8, String> {
    match text.trim_end_matches('%').trim().parse() {
        Ok(percent) if percent <= 100 => Ok(percent),
        _ => Err("expected a percentage from 0 to 100".into()),
    }
}

/// Reads a port.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "expected a port from 0 to 65535".into())
}

/// Reads a port that need not be there.
pub(crate) fn resp_port(text: &str) -> Result<Option<u16>, String> {
    if text == "none" { Ok(None) } else { port(text).map(Some) }
}

/// Reads a number of databases.
pub(crate) fn databases(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| "expected a number from 1".into())
}

/// Reads a number of things that may be unlimited.
pub(crate) fn limit(text: &str) -> Result<Option<u32>, String> {
    match text {
        "unlimited" => Ok(None),
        number => match number.parse() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => Err("expected a number from 1, or unlimited".into()),
        },
    }
}
