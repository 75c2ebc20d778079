//! What goes wrong most in a run.

use super::clients::Task;
use super::dice::Dice;

/// What goes wrong most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    /// Everything.
    Mixed,
    /// The power, also of all machines at once.
    Power,
    /// The network.
    Network,
    /// Nothing much, but members come and go.
    Members,
    /// The power of voters, and the network around leaders. Processes are killed too.
    Votes,
}

impl Profile {
    /// Returns the number of nodes that found the cluster, and of all machines.
    pub(super) fn sizes(self, seed: u64) -> (u64, u64) {
        match self {
            Self::Mixed if seed.is_multiple_of(2) => (5, 6),
            Self::Mixed | Self::Power => (3, 4),
            Self::Members => (3, 6),
            Self::Network | Self::Votes => (3, 3),
        }
    }

    /// Returns the number of shards.
    pub(super) fn shards(self, seed: u64) -> u16 {
        if (seed / 2 + self as u64).is_multiple_of(2) { 2 } else { 3 }
    }

    /// Returns whether nodes forward what others lead, instead of telling clients where it is.
    pub(super) fn forwards(self, seed: u64) -> bool {
        (seed + self as u64) % 3 == 2
    }

    pub(super) fn task(self, dice: &mut Dice) -> Task {
        match self {
            Self::Members => {
                dice.of(&[Task::Snapshot, Task::Transfer, Task::Join, Task::Leave, Task::Join])
            }
            Self::Votes => Task::Transfer,
            _ => {
                dice.of(&[Task::Snapshot, Task::Snapshot, Task::Transfer, Task::Join, Task::Leave])
            }
        }
    }

    /// Returns the milliseconds between two tasks of the administrator.
    pub(super) fn task_pause(self) -> u64 {
        if self == Self::Members { 300 } else { 900 }
    }

    /// Returns how many entries stay in a log that is purged. Where these are many, no snapshot is
    /// made, and a node that restarts applies its whole log.
    pub(super) fn kept(self) -> u64 {
        if self == Self::Votes { 10_000 } else { 10 }
    }

    /// Returns the milliseconds between two faults.
    pub(super) fn fault_pause(self) -> u64 {
        match self {
            Self::Members => 1500,
            Self::Votes => 2000,
            _ => 700,
        }
    }

    pub(super) fn fault(self, dice: &mut Dice) -> FaultKind {
        use FaultKind::{AllOff, Cut, Held, Kill, OneWay, PowerCut, Sides, Voter};
        match self {
            Self::Mixed => dice.of(&[AllOff, Cut, Held, Kill, OneWay, PowerCut, PowerCut, Sides]),
            Self::Power => dice.of(&[AllOff, AllOff, Kill, PowerCut, PowerCut, Held]),
            Self::Network => dice.of(&[Cut, Cut, Held, OneWay, Sides]),
            Self::Members => dice.of(&[Cut, Kill, PowerCut, PowerCut, Held]),
            Self::Votes => dice.of(&[Voter, Voter, Kill]),
        }
    }
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// A machine is switched off, and on again.
    PowerCut,
    /// All are.
    AllOff,
    /// A process is killed, and started again.
    Kill,
    /// A node does not reach the others, nor they it.
    Cut,
    /// What a node and the others say to each other arrives late.
    Held,
    /// A node does not reach the others, or they do not reach it.
    OneWay,
    /// The network falls into two parts.
    Sides,
    /// A leader is cut off, and another node is switched off as soon as it has elected the third.
    Voter,
}
