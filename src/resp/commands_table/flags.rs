//! What a command is and does.

/// A set of flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::resp) struct CommandFlags(u32);

impl CommandFlags {
    pub(super) const EMPTY: Self = Self(0);
    pub(in crate::resp) const READ: Self = Self(1);
    pub(in crate::resp) const WRITE: Self = Self(1 << 1);
    pub(super) const FAST: Self = Self(1 << 2);
    /// Shown to no monitor either.
    pub(in crate::resp) const ADMIN: Self = Self(1 << 3);
    pub(super) const PUBSUB: Self = Self(1 << 4);
    pub(in crate::resp) const NO_AUTH: Self = Self(1 << 5);
    pub(in crate::resp) const NO_MULTI: Self = Self(1 << 6);
    /// May use more memory.
    pub(super) const GROWS: Self = Self(1 << 7);
    /// Its arguments are shown to no monitor.
    pub(in crate::resp) const NO_MONITOR: Self = Self(1 << 8);
    pub(in crate::resp) const NO_SLOW_LOG: Self = Self(1 << 9);
    /// May take long, so it does not run on a thread that serves other clients.
    pub(in crate::resp) const SLOW: Self = Self(1 << 10);
    /// A name for subcommands.
    pub(in crate::resp) const CONTAINER: Self = Self(1 << 11);
    /// Runs at once even after `MULTI`.
    pub(in crate::resp) const IN_QUEUE_RUNS: Self = Self(1 << 12);
    /// Allowed to a subscriber that speaks version 2.
    pub(in crate::resp) const FOR_SUBSCRIBERS: Self = Self(1 << 13);

    /// Returns whether one of the flags of another set is in this one.
    pub(in crate::resp) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(in crate::resp) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the names that `COMMAND INFO` shows.
    pub(in crate::resp) fn names(self) -> Vec<&'static str> {
        let names = [
            (Self::WRITE, "write"),
            (Self::READ, "readonly"),
            (Self::GROWS, "denyoom"),
            (Self::ADMIN, "admin"),
            (Self::PUBSUB, "pubsub"),
            (Self::NO_MULTI, "no_multi"),
            (Self::NO_AUTH, "no_auth"),
            (Self::NO_MONITOR, "skip_monitor"),
            (Self::NO_SLOW_LOG, "skip_slowlog"),
            (Self::FAST, "fast"),
        ];
        names.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| *name).collect()
    }

    /// Returns the categories that Redis would put the command in.
    pub(in crate::resp) fn categories(self, group: &str) -> Vec<&'static str> {
        let mut categories = match group {
            "string" => vec!["@string"],
            "hash" => vec!["@hash"],
            "generic" => vec!["@keyspace"],
            "connection" => vec!["@connection"],
            "pubsub" => vec!["@pubsub"],
            "transactions" => vec!["@transaction"],
            _ => Vec::new(),
        };
        let by_flag = [
            (Self::WRITE, "@write"),
            (Self::READ, "@read"),
            (Self::ADMIN, "@admin"),
            (Self::ADMIN, "@dangerous"),
        ];
        let has = by_flag.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| *name);
        categories.extend(has);
        categories.push(if self.has(Self::FAST) { "@fast" } else { "@slow" });
        categories
    }
}
