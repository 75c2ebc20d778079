//! Which nodes leave questions unanswered.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a node may leave all questions unanswered before it counts as silent.
const SILENCE: Duration = Duration::from_secs(3);
/// Time after which it is forgotten that a node was silent, unless it was asked again.
const MEMORY: Duration = Duration::from_secs(10);

/// A question without an answer, and the last one.
#[derive(Debug, Clone, Copy)]
struct OpenQuestions {
    first: Instant,
    last: Instant,
}

/// What a node has asked others in vain.
#[derive(Debug, Default)]
pub(crate) struct SilentPeers {
    /// Lock 9: the questions by node, each only for a moment.
    open: Mutex<BTreeMap<u64, OpenQuestions>>,
}

impl SilentPeers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, OpenQuestions>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a node is asked.
    pub(super) fn asked(&self, node: u64) {
        let now = Instant::now();
        let mut open = self.lock();
        let questions = open.entry(node).or_insert(OpenQuestions { first: now, last: now });
        if questions.last.elapsed() > MEMORY {
            questions.first = now;
        }
        questions.last = now;
    }

    /// Notes that a node has said something.
    pub(crate) fn heard(&self, node: u64) {
        self.lock().remove(&node);
    }

    /// Returns for how long a node has left unanswered what it was asked.
    pub(super) fn silence_of(&self, node: u64) -> Duration {
        let open = self.lock().get(&node).copied();
        open.map(|questions| questions.first.elapsed()).unwrap_or_default()
    }

    /// Returns whether a node has answered nothing for a while, although it was asked.
    pub(crate) fn has(&self, node: u64) -> bool {
        self.lock().get(&node).is_some_and(|questions| {
            questions.first.elapsed() >= SILENCE && questions.last.elapsed() <= MEMORY
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_silent_once_it_leaves_questions_unanswered_for_long() {
        let silent = SilentPeers::default();
        assert!(!silent.has(2));
        for _ in 0..3 {
            silent.asked(2);
            assert!(!silent.has(2));
            tokio::time::advance(SILENCE / 3).await;
        }
        assert!(silent.has(2) && !silent.has(3));
        silent.heard(2);
        assert!(!silent.has(2));
        // Nobody asks it any more, so nobody knows.
        silent.asked(2);
        tokio::time::advance(MEMORY).await;
        assert!(silent.has(2));
        tokio::time::advance(MEMORY).await;
        assert!(!silent.has(2));
        silent.asked(2);
        assert!(!silent.has(2));
    }
}
