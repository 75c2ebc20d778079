//! What a client has sent while the replies to its earlier commands could not be sent.
//!
//! - Many clients send all of a pipeline before they read a reply. If the server read nothing
//!   meanwhile, each of both would wait until the other one reads.
//! - The bytes are kept as they came, in chunks, and no command in them runs before the replies are
//!   sent.
//! - There is a limit for a client, and one for all of them. A client beyond it is not read from
//!   until there is room. The last quarter is for clients with little, so that a few with much do
//!   not keep all others waiting.
//! - A client that has not authenticated is not read from.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Maximum size of what is kept for one client.
const CLIENT_SIZE_MAX: usize = 128 << 20;
/// Maximum size of what is kept for all clients of a server.
const ALL_SIZE_MAX: usize = 512 << 20;
/// Number of chunks up to which a client may take from the last quarter of all memory.
const LITTLE: usize = 64;
/// Size of a chunk.
const CHUNK_SIZE: usize = 64 << 10;

/// How much is kept for all clients.
#[derive(Debug)]
pub(super) struct ReadAheadBudget {
    taken: AtomicUsize,
    limit: usize,
}

impl Default for ReadAheadBudget {
    fn default() -> Self {
        Self { taken: AtomicUsize::new(0), limit: ALL_SIZE_MAX }
    }
}

impl ReadAheadBudget {
    /// Returns how much all clients may have so that one with so many chunks gets another one.
    fn limit_for(&self, chunks: usize) -> usize {
        if chunks < LITTLE { self.limit } else { self.limit / 4 * 3 }
    }

    /// Returns whether there is room for another chunk of a client that has so many.
    fn has_room(&self, chunks: usize) -> bool {
        self.taken.load(Ordering::Relaxed) + CHUNK_SIZE <= self.limit_for(chunks)
    }

    /// Takes room for a chunk, if there is any.
    fn take(&self, chunks: usize) -> bool {
        let taken = self.taken.fetch_add(CHUNK_SIZE, Ordering::Relaxed);
        let has_room = taken + CHUNK_SIZE <= self.limit_for(chunks);
        if !has_room {
            self.give_back(1);
        }
        has_room
    }

    fn give_back(&self, chunks: usize) {
        self.taken.fetch_sub(chunks * CHUNK_SIZE, Ordering::Relaxed);
    }
}

/// What is kept for one client.
#[derive(Debug)]
pub(super) struct ReadAhead {
    budget: Arc<ReadAheadBudget>,
    chunks: VecDeque<Vec<u8>>,
    limit: usize,
    size: usize,
    /// Whether the client has sent its last byte.
    is_over: bool,
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.budget.give_back(self.chunks.len());
    }
}

impl ReadAhead {
    pub(super) fn new(budget: Arc<ReadAheadBudget>) -> Self {
        let chunks = VecDeque::new();
        Self { budget, chunks, limit: CLIENT_SIZE_MAX, size: 0, is_over: false }
    }

    /// Returns the number of bytes.
    pub(super) fn len(&self) -> usize {
        self.size
    }

    /// Returns whether more may be read, as far as the client alone matters.
    pub(super) fn wants_more(&self) -> bool {
        !self.is_over && self.size < self.limit
    }

    /// Returns whether there is memory for more.
    pub(super) fn has_room(&self) -> bool {
        self.spare() > 0 || self.budget.has_room(self.chunks.len())
    }

    /// Returns how much room the last chunk has left.
    fn spare(&self) -> usize {
        self.chunks.back().map_or(0, |chunk| CHUNK_SIZE.saturating_sub(chunk.len()))
    }

    /// Reads once, with a function that appends what it has read to a buffer with room, and returns
    /// how much that is: nothing at the end. Does not call it if there is no memory for more.
    pub(super) fn read(
        &mut self,
        read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.spare() == 0 {
            if !self.budget.take(self.chunks.len()) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.chunks.push_back(Vec::with_capacity(CHUNK_SIZE));
        }
        let Some(chunk) = self.chunks.back_mut() else { return Ok(0) };
        let result = read(chunk);
        if chunk.is_empty() {
            self.chunks.pop_back();
            self.budget.give_back(1);
        }
        if let Ok(size) = result {
            self.size += size;
            self.is_over |= size == 0;
        }
        result
    }

    /// Removes the oldest chunk.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let chunk = self.chunks.pop_front()?;
        self.size -= chunk.len();
        self.budget.give_back(1);
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads this much, if there is room for it.
    fn read(ahead: &mut ReadAhead, size: usize) -> bool {
        let append = |chunk: &mut Vec<u8>| {
            assert!(chunk.capacity() - chunk.len() >= size, "no room was given");
            chunk.resize(chunk.len() + size, b'x');
            Ok(size)
        };
        ahead.wants_more() && ahead.has_room() && ahead.read(append).unwrap() == size
    }

    #[test]
    fn what_was_read_comes_back_in_order() {
        let mut ahead = ReadAhead::new(Arc::default());
        let append = |byte: u8| {
            move |chunk: &mut Vec<u8>| {
                chunk.push(byte);
                Ok(1)
            }
        };
        let sent: Vec<u8> = (0..=255).cycle().take(2 * CHUNK_SIZE + 100).collect();
        for byte in &sent {
            assert_eq!(ahead.read(append(*byte)).unwrap(), 1);
        }
        assert_eq!(ahead.len(), sent.len());
        let chunks: Vec<_> = std::iter::from_fn(|| ahead.take()).collect();
        assert_eq!((chunks.concat(), ahead.len()), (sent, 0));
    }

    #[test]
    fn one_client_does_not_fill_the_memory() {
        let mut ahead = ReadAhead::new(Arc::default());
        ahead.limit = 3 * CHUNK_SIZE;
        let count = (0..100).filter(|_| read(&mut ahead, CHUNK_SIZE)).count();
        assert_eq!((count, ahead.wants_more()), (3, false));
        ahead.take();
        assert!(read(&mut ahead, CHUNK_SIZE));
    }

    #[test]
    fn all_clients_together_do_not_fill_the_memory() {
        let budget = ReadAheadBudget { taken: AtomicUsize::new(0), limit: 10 * CHUNK_SIZE };
        let budget = Arc::new(budget);
        let mut clients: Vec<_> = (0..20).map(|_| ReadAhead::new(Arc::clone(&budget))).collect();
        let count = clients.iter_mut().filter_map(|client| read(client, 1).then_some(())).count();
        assert_eq!(count, 10);
        assert!(clients[15].wants_more() && !clients[15].has_room());
        let refused = clients[15].read(|_| Ok(1)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        // Those that have a chunk go on, and one that leaves makes room.
        assert!(read(&mut clients[3], 1));
        clients.remove(3);
        assert!(read(&mut clients[15], 1));
        drop(clients);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_client_with_much_leaves_room_for_those_with_little() {
        let limit = 8 * LITTLE * CHUNK_SIZE;
        let budget = Arc::new(ReadAheadBudget { taken: AtomicUsize::new(0), limit });
        let client = || ReadAhead::new(Arc::clone(&budget));
        let fill =
            |ahead: &mut ReadAhead| (0..1000).take_while(|_| read(ahead, CHUNK_SIZE)).count();
        let (mut hog, mut other, mut last) = (client(), client(), client());
        assert_eq!(fill(&mut hog), 6 * LITTLE);
        assert!(hog.wants_more() && !hog.has_room());
        assert_eq!((fill(&mut other), fill(&mut last)), (LITTLE, LITTLE));
        assert_eq!(fill(&mut client()), 0, "all of it is taken");
        // What has less again may take more.
        other.take();
        assert!(read(&mut other, CHUNK_SIZE) && !read(&mut hog, 1));
    }

    #[test]
    fn a_read_of_nothing_keeps_no_memory() {
        let mut ahead = ReadAhead::new(Arc::default());
        let blocked = |_: &mut Vec<u8>| Err(io::ErrorKind::WouldBlock.into());
        assert!(ahead.read(blocked).is_err() && ahead.wants_more());
        assert_eq!(ahead.read(|_| Ok(0)).unwrap(), 0);
        assert!(!ahead.wants_more());
        assert_eq!(ahead.budget.taken.load(Ordering::Relaxed), 0);
    }
}
