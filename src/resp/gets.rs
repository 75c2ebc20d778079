//! `GET`s that have arrived together: one look-up.

use std::time::Instant;

use bytes::Bytes;

use super::commands_table::table;
use super::encoding::encode_key;
use super::holding::{Holding, StoredString};
use super::keyspace::Keyspace;
use super::refusal::Answer;
use super::reply::Reply;
use super::session::{ReplyMode, Session};
use crate::value::Value;

impl Session {
    /// Returns whether nothing but the values matters to a `GET`.
    pub(super) fn is_plain(&self) -> bool {
        self.has_plain_replies() && self.state.options.shards.is_none()
    }

    /// Returns whether nobody but the client itself notices in what order its commands run.
    pub(super) fn has_plain_replies(&self) -> bool {
        self.queue.is_none()
            && !self.is_kept_out()
            && !self.is_stranger()
            && self.tracking.is_none()
            && self.replies == ReplyMode::On
            && !self.is_monitor
            && !self.is_subscriber()
            && !self.state.hub.has_monitors()
            && self.peer.outbox.is_empty()
    }

    /// Runs `GET`s that have arrived together, and appends their replies up to a size. Returns how
    /// many it has answered, at least one.
    pub(super) fn get_many(&mut self, keys: &[&Bytes], size: usize) -> usize {
        let mut stored: Vec<_> = keys.iter().map(|key| encode_key(key)).collect();
        stored.truncate(self.database.fitting(&stored, size as u64));
        let values: Vec<Answer<Option<Value>>> =
            if let Ok(values) = self.database.store.get_many(&stored) {
                values.into_iter().map(Ok).collect()
            } else {
                // One value cannot be read, and the others can.
                let space = Keyspace::new(&self.database);
                stored.iter().map(|key| space.stored(key)).collect()
            };
        let (mut answered, mut failed) = (0, 0);
        let mut answer = |session: &mut Self, reply: &Reply| {
            failed += u64::from(session.count_error(reply));
            answered += 1;
            reply.write(session.protocol, &mut session.out);
            session.out.len() >= size
        };
        for value in values {
            if matches!(&value, Ok(Some(value)) if value.in_memory().is_some()) {
                self.database.note_copy();
            }
            let string =
                value.and_then(|value| value.map(|value| Holding::new(value).string()).transpose());
            let reply = match string {
                Ok(string) => Reply::maybe(string.map(StoredString::into_reply)),
                Err(refusal) => refusal.into_reply(),
            };
            if answer(self, &reply) {
                break;
            }
        }
        let now = Instant::now();
        let took = now.saturating_duration_since(std::mem::replace(&mut self.clock, now));
        let micros = u64::try_from(took.as_micros()).unwrap_or(0);
        if let Some((at, spec)) = table().find("get") {
            self.last_command = spec.name;
            self.count(at, u64::try_from(answered).unwrap_or(0), micros, failed);
        }
        answered
    }
}
