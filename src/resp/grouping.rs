//! Commands of one kind that have arrived together, and run as one: `GET`s as one look-up, and
//! writes at a node of a cluster as one entry for each shard.

use bytes::Bytes;

use super::connection::{Connection, OUT_SIZE_SENT};
use super::shared_writes::SharedWrite;

/// Maximum number of `GET`s that become one look-up.
const GETS_MAX: usize = 256;
/// Maximum number of writes that share entries.
const WRITES_MAX: usize = 512;
/// Maximum size of the arguments of writes that share entries, in bytes.
const WRITES_SIZE_MAX: usize = 1 << 20;

impl Connection {
    /// Runs a command, and those that follow it if they can run together.
    pub(super) fn run_grouped(&mut self, first: Vec<Bytes>) {
        if is_get(&first) && self.session.is_plain() {
            self.run_gets(first);
        } else if let Some(write) = self.session.shared_write(&first) {
            self.run_writes(first, write);
        } else {
            self.session.run(&first);
        }
    }

    /// Runs a write and those that follow it.
    fn run_writes(&mut self, first: Vec<Bytes>, write: SharedWrite) {
        let size_of = |args: &[Bytes]| args.iter().map(Bytes::len).sum::<usize>();
        let mut size = size_of(&first);
        let mut writes = vec![(first, write)];
        while writes.len() < WRITES_MAX
            && let Some(command) = self.next()
        {
            size += size_of(&command);
            let write = self.session.shared_write(&command).filter(|_| size <= WRITES_SIZE_MAX);
            let Some(write) = write else {
                self.ready.push(command);
                break;
            };
            writes.push((command, write));
        }
        match &*writes {
            [(write, _)] => self.session.run(write),
            _ => self.session.write_together(&writes),
        }
    }

    /// Runs a `GET` and those that follow it.
    fn run_gets(&mut self, first: Vec<Bytes>) {
        let mut gets = vec![first];
        while gets.len() < GETS_MAX
            && let Some(command) = self.next()
        {
            if !is_get(&command) {
                self.ready.push(command);
                break;
            }
            gets.push(command);
        }
        if let [get] = &*gets {
            return self.session.run(get);
        }
        let keys: Vec<&Bytes> = gets.iter().filter_map(|get| get.get(1)).collect();
        let answered = self.session.get_many(&keys, OUT_SIZE_SENT);
        // The others wait until these replies are sent.
        self.ready.extend(gets.drain(answered.min(gets.len())..).rev());
    }
}

fn is_get(command: &[Bytes]) -> bool {
    matches!(command, [name, _] if name.eq_ignore_ascii_case(b"get"))
}
