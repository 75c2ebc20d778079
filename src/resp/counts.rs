//! What the server has counted since it was started, or since `CONFIG RESETSTAT`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::numbers::now_ms;
use super::peers::Peer;

/// Maximum number of different error codes that are counted.
const CODES_MAX: usize = 128;
/// Maximum size of an error code. A longer word is none, as in Redis.
const CODE_SIZE_MAX: usize = 32;
/// Maximum number of arguments of a command in the slow log, and maximum size of each.
const SLOW_ARGUMENTS_MAX: usize = 32;
const SLOW_ARGUMENT_SIZE_MAX: usize = 128;

/// Counts of one command.
#[derive(Debug, Default)]
pub(super) struct CommandCounts {
    pub(super) calls: AtomicU64,
    pub(super) micros: AtomicU64,
    /// Calls that were refused before they ran.
    pub(super) rejected: AtomicU64,
    /// Calls that ended with an error.
    pub(super) failed: AtomicU64,
}

/// A command that took long.
#[derive(Debug, Clone)]
pub(super) struct SlowCommand {
    pub(super) id: u64,
    /// Seconds since the epoch.
    pub(super) time: i64,
    pub(super) micros: u64,
    pub(super) args: Vec<Vec<u8>>,
    pub(super) address: String,
    pub(super) name: String,
}

/// All counts.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) commands: Vec<CommandCounts>,
    pub(super) connections: AtomicU64,
    pub(super) rejected_connections: AtomicU64,
    pub(super) full_outboxes: AtomicU64,
    pub(super) processed: AtomicU64,
    pub(super) input_bytes: AtomicU64,
    pub(super) output_bytes: AtomicU64,
    pub(super) expired: AtomicU64,
    /// Lock 0: the number of errors by code.
    errors: Mutex<BTreeMap<String, u64>>,
    /// Lock 0: the slow commands, newest first, and the id of the next one.
    slow: Mutex<(VecDeque<SlowCommand>, u64)>,
}

pub(super) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

pub(super) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counts {
    pub(super) fn new(commands: usize) -> Self {
        Self {
            commands: (0..commands).map(|_| CommandCounts::default()).collect(),
            connections: AtomicU64::new(0),
            rejected_connections: AtomicU64::new(0),
            full_outboxes: AtomicU64::new(0),
            processed: AtomicU64::new(0),
            input_bytes: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            errors: Mutex::default(),
            slow: Mutex::default(),
        }
    }

    fn errors_held(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slow_held(&self) -> MutexGuard<'_, (VecDeque<SlowCommand>, u64)> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an error by its code, the first word of its text if that is short.
    pub(super) fn error(&self, text: &str) {
        let word = text.split_once(' ').map(|(word, _)| word);
        let code = word.filter(|word| word.len() <= CODE_SIZE_MAX).unwrap_or("ERR");
        let mut errors = self.errors_held();
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < CODES_MAX {
            errors.insert(code.to_owned(), 1);
        }
    }

    pub(super) fn errors(&self) -> BTreeMap<String, u64> {
        self.errors_held().clone()
    }

    /// Notes a command that took long.
    pub(super) fn note_slow(&self, args: &[Bytes], took: Duration, peer: &Peer, limit: usize) {
        let name = peer.view().0.name.clone();
        let shown = |(at, arg): (usize, &Bytes)| {
            if at + 1 == SLOW_ARGUMENTS_MAX && args.len() > SLOW_ARGUMENTS_MAX {
                let more = args.len() - SLOW_ARGUMENTS_MAX + 1;
                return format!("... ({more} more arguments)").into_bytes();
            }
            match arg.split_at_checked(SLOW_ARGUMENT_SIZE_MAX) {
                Some((start, rest)) if !rest.is_empty() => {
                    let more = format!("... ({} more bytes)", rest.len());
                    [start, more.as_bytes()].concat()
                }
                _ => arg.to_vec(),
            }
        };
        let args = args.iter().take(SLOW_ARGUMENTS_MAX).enumerate().map(shown).collect();
        let mut held = self.slow_held();
        let (slow, next) = &mut *held;
        slow.push_front(SlowCommand {
            id: *next,
            time: now_ms() / 1000,
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            args,
            address: peer.address.clone(),
            name,
        });
        *next += 1;
        slow.truncate(limit);
    }

    pub(super) fn slow(&self, limit: usize) -> Vec<SlowCommand> {
        self.slow_held().0.iter().take(limit).cloned().collect()
    }

    pub(super) fn slow_len(&self) -> usize {
        self.slow_held().0.len()
    }

    pub(super) fn reset_slow(&self) {
        self.slow_held().0.clear();
    }

    /// Begins to count again.
    pub(super) fn reset(&self) {
        for command in &self.commands {
            let counters = [&command.calls, &command.micros, &command.rejected, &command.failed];
            for counter in counters {
                counter.store(0, Ordering::Relaxed);
            }
        }
        let counters = [
            &self.connections,
            &self.rejected_connections,
            &self.full_outboxes,
            &self.processed,
            &self.input_bytes,
            &self.output_bytes,
            &self.expired,
        ];
        for counter in counters {
            counter.store(0, Ordering::Relaxed);
        }
        self.errors_held().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `DEBUG ERROR` chooses the text, and codes are kept until they are reset.
    #[test]
    fn a_long_word_is_no_error_code() {
        let counts = Counts::new(0);
        for text in ["WRONGTYPE Operation", "ERR syntax", "x", &"x".repeat(1 << 20)] {
            counts.error(text);
        }
        counts.error(&format!("{} text", "y".repeat(33)));
        let counted: Vec<_> = counts.errors().into_iter().collect();
        assert_eq!(counted, [("ERR".to_owned(), 4), ("WRONGTYPE".to_owned(), 1)]);
    }
}
