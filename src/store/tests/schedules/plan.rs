//! The tasks of a schedule, rolled from a seed.

use super::*;

/// The operations that a plan has most of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Focus {
    Merges,
    Everything,
    Views,
    Followers,
    Conflicts,
    Clears,
    Syncs,
    Pauses,
}

impl Focus {
    pub(super) const ALL: [Self; 8] = [
        Self::Merges,
        Self::Everything,
        Self::Views,
        Self::Followers,
        Self::Conflicts,
        Self::Clears,
        Self::Syncs,
        Self::Pauses,
    ];

    /// Returns the name of the test that runs such plans.
    pub(super) fn test(self) -> &'static str {
        match self {
            Self::Merges => "writers_with_merges",
            Self::Everything => "writers_with_everything",
            Self::Views => "views_with_writers",
            Self::Followers => "followers_with_writers",
            Self::Conflicts => "writers_of_few_keys",
            Self::Clears => "clears_with_writers",
            Self::Syncs => "syncs_with_writers",
            Self::Pauses => "pauses_with_merges",
        }
    }

    fn keys(self) -> u64 {
        match self {
            Self::Conflicts => 2,
            Self::Clears | Self::Merges | Self::Views | Self::Syncs | Self::Pauses => 4,
            Self::Everything | Self::Followers => 6,
        }
    }
}

/// Lifetime of a put key. The clock does not move in a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    For(Duration),
    Endless,
}

pub(super) const OVER: Life = Life::For(Duration::ZERO);
pub(super) const HOUR: Life = Life::For(Duration::from_secs(3600));

/// An operation of a task. Keys are given by number.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Put {
        key: usize,
        life: Life,
        sync: bool,
    },
    Delete {
        key: usize,
        sync: bool,
    },
    /// Puts keys, and deletes those marked `false`.
    Batch {
        changes: Vec<(usize, bool)>,
        sync: bool,
    },
    /// Replaces the value that a lookup just before has found.
    CompareAndSwap {
        key: usize,
        put: bool,
    },
    Insert {
        key: usize,
    },
    Update {
        key: usize,
    },
    /// Sets a key's lifetime.
    Live {
        key: usize,
        life: Life,
    },
    /// Reads keys, or all of them in order, and makes changes.
    Transaction {
        reads: Vec<usize>,
        by_range: bool,
        changes: Vec<(usize, bool)>,
    },
    RemoveAll,
    Get {
        key: usize,
    },
    GetMany,
    Contains {
        key: usize,
    },
    /// Takes a snapshot, and reads it twice.
    Snapshot,
    /// Reads the store in order.
    Scan,
    /// Reads the store in no particular order.
    Iterate,
    Seal,
    /// Does the work of the syncing thread.
    SyncDue,
    Sync,
    Prepare,
    Fill,
    Index,
    /// Ends the active segment, and merges everything.
    MergeAll,
    /// Merges the sealed segments whose bits are set.
    MergeSome {
        segments: u64,
    },
    /// Pauses merges, and watches for this many steps that none is at work.
    Pause {
        steps: u64,
    },
    Backup,
    Verify,
    Clear,
    Figures,
    /// Reads a store that is opened read-only. What it has reached is no bound for other calls.
    Reader,
}

/// One task.
#[derive(Debug, Clone)]
pub(super) enum Role {
    Calls(Vec<Op>),
    /// Follows the changes until the store is closed, and looks up each key that it receives.
    Follower {
        by_prefix: bool,
    },
    /// Opens the store read-only, and refreshes it this many times.
    Reader {
        refreshes: u64,
    },
}

/// A schedule's tasks, and the store that they begin with.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) options: Options,
    pub(super) weak_hash: bool,
    /// Operations before the tasks begin.
    pub(super) before: Vec<Op>,
    /// Whether the store is then closed and reopened, so that no shard is filled.
    pub(super) reopened: bool,
    pub(super) roles: Vec<Role>,
}

impl Plan {
    pub(super) fn roll(focus: Focus, seed: u64) -> Self {
        let mut random = Random(seed ^ (focus as u64) << 32);
        let keys = (0..focus.keys()).map(|at| vec![b'a' + u8::try_from(at % 26).unwrap(); 2]);
        let keys: Vec<Vec<u8>> = keys.collect();
        let always = focus == Focus::Syncs && random.below(2) == 0;
        let interval = SyncPolicy::Interval(Duration::from_micros(40));
        let lazy = if focus == Focus::Syncs { interval } else { SyncPolicy::Never };
        let modes = [AppendMode::Mapped, AppendMode::Positioned];
        let options = Options::new()
            .segment_size(1024)
            .segment_entries([2, 3, 5][usize::try_from(random.below(3)).unwrap()])
            .append_mode(modes[usize::from(random.below(4) == 0)])
            .sync_policy(if always { SyncPolicy::Always } else { lazy })
            .merge_policy(crate::MergePolicy::Manual);
        let is_small = seed % 4 > 1;
        let mut roll = Roll { random, keys: keys.len(), is_small };
        let before = (0..roll.below(8)).map(|_| roll.old()).collect();
        let (weak_hash, reopened) = (roll.below(4) == 0, roll.below(3) == 0);
        let roles = roll.roles(focus);
        Self { seed, keys, options, weak_hash, before, reopened, roles }
    }

    pub(super) fn lab(&self) -> Lab {
        let lab = if self.weak_hash { Lab::weak() } else { Lab::new() };
        lab.with(self.options.clone()).seeded(self.seed)
    }
}

struct Roll {
    random: Random,
    keys: usize,
    /// Each task makes one call: a window of one step is hit sooner among few steps.
    is_small: bool,
}

impl Roll {
    fn below(&mut self, limit: u64) -> u64 {
        self.random.below(limit)
    }

    fn key(&mut self) -> usize {
        usize::try_from(self.random.below(self.keys as u64)).unwrap()
    }

    fn changes(&mut self) -> Vec<(usize, bool)> {
        (0..=self.below(3)).map(|_| (self.key(), self.below(2) == 0)).collect()
    }

    fn life(&mut self) -> Life {
        [Life::Endless, HOUR, OVER][usize::try_from(self.below(3)).unwrap()]
    }

    fn calls(&mut self, op: fn(&mut Self) -> Op, least: u64, more: u64) -> Role {
        let len = if self.is_small { least.min(1) } else { least + self.below(more) };
        Role::Calls((0..len).map(|_| op(self)).collect())
    }

    fn roles(&mut self, focus: Focus) -> Vec<Role> {
        match focus {
            Focus::Merges => vec![
                self.calls(Self::write, 2, 4),
                self.calls(Self::write, 1, 3),
                self.calls(Self::merge, 1, 3),
                self.calls(Self::background, 1, 3),
            ],
            Focus::Everything => vec![
                self.calls(Self::write, 2, 4),
                self.calls(Self::any_write, 2, 4),
                self.calls(Self::read, 1, 4),
                self.calls(Self::background, 2, 4),
                self.calls(Self::rare, 1, 3),
            ],
            Focus::Views => vec![
                self.calls(Self::write, 2, 4),
                self.calls(Self::any_write, 0, 4),
                self.calls(Self::view, 1, 3),
                self.calls(Self::merge, 1, 4),
                self.calls(Self::rare, 0, 2),
            ],
            Focus::Followers => vec![
                self.calls(Self::any_write, 2, 4),
                self.calls(Self::write, 2, 4),
                self.calls(Self::background, 1, 3),
                self.calls(Self::merge, 0, 2),
                self.calls(Self::rare, 0, 2),
                Role::Follower { by_prefix: self.below(4) == 0 },
                Role::Reader { refreshes: 1 + self.below(3) },
            ],
            Focus::Conflicts => vec![
                self.calls(Self::any_write, 2, 4),
                self.calls(Self::any_write, 2, 4),
                self.calls(Self::any_write, 1, 3),
                self.calls(Self::read, 0, 3),
                self.calls(Self::merge, 0, 2),
            ],
            Focus::Clears => vec![
                self.calls(Self::ranged, 1, 3),
                self.calls(Self::ranged, 1, 3),
                self.calls(Self::any_write, 1, 3),
                self.calls(Self::clear, 1, 2),
                self.calls(Self::background, 0, 3),
            ],
            Focus::Syncs => vec![
                self.calls(Self::any_write, 2, 3),
                self.calls(Self::write, 2, 3),
                self.calls(Self::sync, 2, 3),
                self.calls(Self::background, 1, 3),
                self.calls(Self::merge, 0, 2),
            ],
            Focus::Pauses => vec![
                self.calls(Self::write, 1, 3),
                self.calls(Self::merge, 1, 3),
                self.calls(Self::merge, 1, 3),
                self.calls(Self::pause, 1, 3),
                self.calls(Self::pause, 1, 2),
                self.calls(Self::background, 0, 3),
            ],
        }
    }

    fn old(&mut self) -> Op {
        match self.below(8) {
            0..=3 => Op::Put { key: self.key(), life: Life::Endless, sync: false },
            4 => Op::Put { key: self.key(), life: OVER, sync: false },
            5 => Op::Delete { key: self.key(), sync: false },
            6 => Op::Batch { changes: self.changes(), sync: false },
            _ => Op::Seal,
        }
    }

    fn write(&mut self) -> Op {
        let sync = self.below(6) == 0;
        match self.below(6) {
            0..=1 => Op::Put { key: self.key(), life: Life::Endless, sync },
            2..=3 => Op::Delete { key: self.key(), sync },
            4 => Op::Put { key: self.key(), life: self.life(), sync },
            _ => Op::Batch { changes: self.changes(), sync },
        }
    }

    fn any_write(&mut self) -> Op {
        match self.below(8) {
            0..=1 => self.write(),
            2 => Op::CompareAndSwap { key: self.key(), put: self.below(3) > 0 },
            3 => Op::Insert { key: self.key() },
            4 => Op::Update { key: self.key() },
            5 => Op::Live { key: self.key(), life: self.life() },
            6 if self.below(4) == 0 => Op::RemoveAll,
            _ => Op::Transaction {
                reads: (0..self.below(3)).map(|_| self.key()).collect(),
                by_range: self.below(3) == 0,
                changes: self.changes(),
            },
        }
    }

    fn read(&mut self) -> Op {
        match self.below(8) {
            0..=3 => Op::Get { key: self.key() },
            4 => Op::GetMany,
            5 => Op::Contains { key: self.key() },
            6 => Op::Iterate,
            _ => self.view(),
        }
    }

    fn view(&mut self) -> Op {
        if self.below(3) == 0 { Op::Scan } else { Op::Snapshot }
    }

    fn merge(&mut self) -> Op {
        match self.below(3) {
            0..=1 => Op::MergeAll,
            _ => Op::MergeSome { segments: self.below(64) },
        }
    }

    fn pause(&mut self) -> Op {
        Op::Pause { steps: self.below(12) }
    }

    fn background(&mut self) -> Op {
        match self.below(8) {
            0..=2 => Op::Seal,
            3 => Op::SyncDue,
            4 => Op::Prepare,
            5 => Op::Fill,
            6 => Op::Index,
            _ => self.merge(),
        }
    }

    fn sync(&mut self) -> Op {
        match self.below(4) {
            0 => Op::Sync,
            1 => Op::SyncDue,
            _ => Op::Put { key: self.key(), life: Life::Endless, sync: true },
        }
    }

    fn clear(&mut self) -> Op {
        if self.below(3) > 0 { Op::Clear } else { self.merge() }
    }

    /// A transaction that reads everything, or a view.
    fn ranged(&mut self) -> Op {
        if self.below(4) == 0 {
            return self.view();
        }
        let reads = (0..self.below(2)).map(|_| self.key()).collect();
        Op::Transaction { reads, by_range: true, changes: self.changes() }
    }

    fn rare(&mut self) -> Op {
        match self.below(8) {
            0..=1 => Op::Clear,
            2..=3 => Op::Backup,
            4 => Op::Verify,
            5 => Op::Figures,
            6 => self.merge(),
            _ => self.sync(),
        }
    }
}
