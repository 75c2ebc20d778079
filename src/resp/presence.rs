//! What others see of a client, and taking it out of that again.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;

use super::commands_table::{CommandFlags, CommandSpec};
use super::monitor::monitor_line;
use super::reply::{Protocol, Reply};
use super::session::{ReplyMode, Session};
use super::transaction::CommandQueue;

/// Returns the arguments of a command as the slow log shows them: without a new password.
pub(super) fn without_secrets<'a>(args: &'a [Bytes], spec: &CommandSpec) -> Cow<'a, [Bytes]> {
    if spec.name != "config|set" {
        return Cow::Borrowed(args);
    }
    let mut shown = args.to_vec();
    for pair in shown.get_mut(2..).unwrap_or_default().chunks_mut(2) {
        if let [name, value] = pair
            && name.eq_ignore_ascii_case(b"requirepass")
        {
            *value = Bytes::from_static(b"(redacted)");
        }
    }
    Cow::Owned(shown)
}

impl Session {
    /// Shows a command to the clients that see all of them.
    pub(super) fn show_monitors(&self, args: &[Bytes], spec: &CommandSpec) {
        let hidden = CommandFlags::NO_MONITOR.and(CommandFlags::ADMIN);
        if !self.state.hub.has_monitors() || spec.flags.has(hidden) {
            return;
        }
        let line = monitor_line(args, self.database.number, &self.peer.address);
        for peer in self.state.hub.monitors() {
            if peer.id != self.peer.id {
                peer.outbox.send(&Reply::Line(line.clone()));
            }
        }
    }

    /// Updates what other clients see of this one.
    pub(super) fn show(&self, unread: usize) {
        let mut view = self.peer.view();
        let (seen, active) = &mut *view;
        *active = Instant::now();
        seen.command = self.last_command;
        seen.database = self.database.number;
        seen.channels = self.channels.len();
        seen.patterns = self.patterns.len();
        seen.queued = self.queue.as_ref().map_or(-1, CommandQueue::len);
        seen.watched = self.watched.len();
        seen.unread = unread;
        seen.protocol = if self.protocol == Protocol::Resp3 { 3 } else { 2 };
        let redirect = self.tracking.as_ref().map(|mode| mode.redirect.unwrap_or(0));
        seen.redirect = redirect.map_or(-1, |id| i64::try_from(id).unwrap_or(0));
        seen.flags.clear();
        let flags = [
            ('O', self.is_monitor),
            ('P', self.is_subscriber()),
            ('x', self.queue.is_some()),
            ('t', self.tracking.is_some()),
            ('c', self.is_closing),
        ];
        seen.flags.extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag));
    }

    /// Takes the client out of everything that others see.
    pub(super) fn leave(&mut self) {
        let id = self.peer.id;
        for channel in std::mem::take(&mut self.channels) {
            self.state.hub.unsubscribe(&channel, id);
        }
        for pattern in std::mem::take(&mut self.patterns) {
            self.state.hub.unsubscribe_pattern(&pattern, id);
        }
        if std::mem::take(&mut self.is_monitor) {
            self.state.hub.unmonitor(id);
        }
        if self.tracking.take().is_some() {
            self.state.tracker.end(id);
        }
        self.queue = None;
        self.subscribed_size = 0;
        self.forget_watched();
        self.replies = ReplyMode::On;
        self.caching = None;
    }
}
