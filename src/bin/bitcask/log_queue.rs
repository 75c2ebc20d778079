//! Log lines on their way to standard error: a thread writes them, so that nobody waits for whoever
//! reads them.
//!
//! If nobody does, the queue fills up, and further lines are lost. How many is reported as soon as
//! somebody reads again.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Maximum size of the lines that wait, in bytes.
const WAITING_MAX: usize = 4 << 20;
/// How long the end of the program waits for lines to be written.
const FLUSHED_WITHIN: Duration = Duration::from_secs(1);

/// The queue of this program, if it has one.
static QUEUE: OnceLock<Arc<LogQueue>> = OnceLock::new();

/// Lines that wait.
#[derive(Debug, Default)]
pub(crate) struct LogQueue {
    /// Lock 9: the lines that wait to be written.
    state: Mutex<QueuedLines>,
    /// Wakes the writer when there is a line, and the end of the program when there is none.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueuedLines {
    lines: VecDeque<Vec<u8>>,
    /// Size of the lines, in bytes.
    size: usize,
    /// Number of lines that were lost since the last report.
    lost: u64,
    /// Whether the writer has taken a line that is not written yet.
    is_writing: bool,
}

impl LogQueue {
    /// Starts the thread that writes. `report` returns the line that says how many were lost.
    pub(crate) fn start(report: fn(u64) -> Vec<u8>) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self::default());
        let written = Arc::clone(&queue);
        let writer = std::thread::Builder::new().name("bitcask-log".into());
        writer.spawn(move || written.write_all(&mut io::stderr(), report))?;
        Ok(Arc::clone(QUEUE.get_or_init(|| queue)))
    }

    /// Adds a line, unless too many wait. Never waits for the reader of the log.
    pub(crate) fn push(&self, line: Vec<u8>) {
        let mut state = self.lock();
        if state.size + line.len() > WAITING_MAX {
            state.lost += 1;
            return;
        }
        state.size += line.len();
        state.lines.push_back(line);
        drop(state);
        self.changed.notify_all();
    }

    /// Writes lines for ever.
    fn write_all(&self, out: &mut impl Write, report: fn(u64) -> Vec<u8>) {
        loop {
            self.write_next(out, report);
        }
    }

    /// Waits for a line, and writes it. Lines that were lost came behind those that wait, so the
    /// report about them follows these.
    fn write_next(&self, out: &mut impl Write, report: fn(u64) -> Vec<u8>) {
        let mut state = self.lock();
        while state.lines.is_empty() && state.lost == 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let line = match state.lines.pop_front() {
            Some(line) => line,
            None => report(std::mem::take(&mut state.lost)),
        };
        state.size = state.size.saturating_sub(line.len());
        state.is_writing = true;
        drop(state);
        // A log that is closed is nothing that could be reported anywhere.
        let _ = out.write_all(&line);
        self.lock().is_writing = false;
        self.changed.notify_all();
    }

    /// Waits until all lines are written, but not for long.
    fn flush(&self) {
        let state = self.lock();
        let waits =
            |state: &mut QueuedLines| !state.lines.is_empty() || state.lost > 0 || state.is_writing;
        let _ = self.changed.wait_timeout_while(state, FLUSHED_WITHIN, waits);
    }

    fn lock(&self) -> MutexGuard<'_, QueuedLines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the lines that wait be written, before the program ends.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush();
    }
}

/// A writer of one line.
#[derive(Debug)]
pub(crate) struct QueuedLine {
    queue: Arc<LogQueue>,
    line: Vec<u8>,
}

impl QueuedLine {
    pub(crate) fn new(queue: &Arc<LogQueue>) -> Self {
        Self { queue: Arc::clone(queue), line: Vec::new() }
    }
}

impl Write for QueuedLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for QueuedLine {
    fn drop(&mut self) {
        self.queue.push(std::mem::take(&mut self.line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lost: u64) -> Vec<u8> {
        format!("lost {lost}\n").into_bytes()
    }

    #[test]
    fn lines_that_nobody_reads_are_counted() {
        let queue = LogQueue::default();
        queue.push(vec![b'x'; WAITING_MAX - 2]);
        queue.push(b"a\n".to_vec());
        queue.push(b"b\n".to_vec());
        queue.push(b"c\n".to_vec());
        let mut out = Vec::new();
        for _ in 0..3 {
            queue.write_next(&mut out, report);
        }
        assert_eq!(out.split_off(WAITING_MAX - 2), b"a\nlost 2\n");
        queue.push(b"d\n".to_vec());
        queue.write_next(&mut out, report);
        assert!(out.ends_with(b"d\n"));
        // Nothing waits any more, so this returns.
        queue.flush();
    }
}
