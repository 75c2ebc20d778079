//! The content of the twin's disk at one moment: names that lead to files, and the files.
//!
//! - It applies operations that were found possible, and never checks or fails anything.
//! - A file stays after its last name is removed, since handles and a later part of the trace may
//!   still write to it. `drop_unreachable` is for disks on which no file is open.
//! - Names and contents change separately, as they do on a disk that loses power.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::arena::{Arena, TwinMap};
use super::crash::Step;
use super::{DirEntry, Op};

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Dir,
    File(u64),
}

/// A name that is made to lead to something else, or is removed.
pub(crate) type Edit = (PathBuf, Option<Node>);

/// All names, by full path, compared byte by byte. A directory sorts before everything below it.
#[derive(Clone)]
pub(crate) struct Names(BTreeMap<OsString, Node>);

impl Default for Names {
    fn default() -> Self {
        Self(BTreeMap::from([("/".into(), Node::Dir)]))
    }
}

impl Names {
    pub(crate) fn get(&self, path: &Path) -> Option<Node> {
        self.0.get(path.as_os_str()).copied()
    }

    /// Looks a path up. The error is the one that Unix would return.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Node> {
        self.get(path).ok_or_else(|| {
            match path.ancestors().find_map(|ancestor| self.get(ancestor)) {
                Some(Node::File(_)) => ErrorKind::NotADirectory.into(),
                _ => ErrorKind::NotFound.into(),
            }
        })
    }

    pub(crate) fn file(&self, path: &Path) -> io::Result<u64> {
        match self.find(path)? {
            Node::File(file) => Ok(file),
            Node::Dir => Err(ErrorKind::IsADirectory.into()),
        }
    }

    pub(crate) fn dir(&self, path: &Path) -> io::Result<()> {
        match self.find(path)? {
            Node::Dir => Ok(()),
            Node::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.0.iter().filter_map(|(path, node)| match node {
            Node::File(file) => Some((Path::new(path), *file)),
            Node::Dir => None,
        })
    }

    pub(crate) fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.dir(dir)?;
        let all = self.0.iter().map(|(path, node)| (Path::new(path), node));
        let children = all.filter(|(path, _)| path.parent() == Some(dir));
        let entry = |(path, node): (&Path, &Node)| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some(DirEntry { name, is_file: *node != Node::Dir })
        };
        Ok(children.filter_map(entry).collect())
    }

    /// Returns what an operation does to the present names.
    ///
    /// After a power cut the same edits are applied to different names: a renamed file gets its new
    /// name even if the old name never reached the disk.
    pub(crate) fn edits(&self, step: &Step) -> Vec<Edit> {
        match step {
            Step::Op(Op::CreateDir { path }) => vec![(path.clone(), Some(Node::Dir))],
            // A file that is emptied keeps its name.
            Step::Op(Op::Create { path, .. }) if self.get(path).is_some() => vec![],
            Step::Op(Op::Create { file, path }) => vec![(path.clone(), Some(Node::File(*file)))],
            Step::Op(Op::Rename { from, to }) => {
                vec![(from.clone(), None), (to.clone(), self.get(from))]
            }
            // Each name leads to the target of the other, or to what a power cut has left there.
            Step::Op(Op::Exchange { a, b }) => {
                vec![(a.clone(), self.get(b)), (b.clone(), self.get(a))]
            }
            Step::Op(Op::Link { from, to }) => vec![(to.clone(), self.get(from))],
            Step::Op(Op::Remove { path } | Op::RemoveDir { path }) | Step::Delete { path } => {
                vec![(path.clone(), None)]
            }
            Step::Put { file, path, .. } => {
                let dirs = path.ancestors().skip(1).map(|dir| (dir.into(), Some(Node::Dir)));
                dirs.chain([(path.clone(), Some(Node::File(*file)))]).collect()
            }
            Step::Op(_) => vec![],
        }
    }

    pub(crate) fn edit(&mut self, edits: Vec<Edit>) {
        for (path, node) in edits {
            match node {
                Some(node) => self.0.insert(path.into(), node),
                None => self.0.remove(path.as_os_str()),
            };
        }
    }

    /// Drops the names below a directory that does not exist.
    fn drop_unreachable(&mut self) {
        let mut reached = BTreeMap::new();
        for (path, node) in std::mem::take(&mut self.0) {
            let parent = Path::new(&path).parent();
            if parent.is_none_or(|parent| reached.get(parent.as_os_str()) == Some(&Node::Dir)) {
                reached.insert(path, node);
            }
        }
        self.0 = reached;
    }
}

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) names: Names,
    contents: BTreeMap<u64, Content>,
    /// Above the number of every file that ever existed.
    pub(crate) next_file: u64,
}

impl Disk {
    pub(crate) fn content(&self, file: u64) -> &Content {
        self.contents.get(&file).expect("an open or named file has contents")
    }

    pub(crate) fn content_mut(&mut self, file: u64) -> &mut Content {
        self.next_file = self.next_file.max(file + 1);
        self.contents.entry(file).or_default()
    }

    pub(crate) fn apply(&mut self, step: &Step) {
        let edits = self.names.edits(step);
        self.names.edit(edits);
        self.apply_to_content(step);
    }

    pub(crate) fn apply_to_content(&mut self, step: &Step) {
        match step {
            Step::Op(Op::Create { file, .. }) => self.content_mut(*file).set_size(0),
            Step::Op(Op::Write { file, offset, bytes }) => {
                self.content_mut(*file).write(index(*offset), bytes);
            }
            Step::Op(Op::SetSize { file, size }) => self.content_mut(*file).set_size(*size),
            Step::Op(Op::Allocate { file, size }) => self.content_mut(*file).allocate(*size),
            Step::Op(Op::Reserve { file, size }) => {
                let content = self.content_mut(*file);
                content.room = content.room.max(*size);
            }
            Step::Put { file, bytes, .. } => self.content_mut(*file).write(0, bytes),
            Step::Op(_) | Step::Delete { .. } => {}
        }
    }

    /// Returns the size in bytes of all linked files, counting each once whatever its names.
    pub(crate) fn room(&self) -> u64 {
        let files: BTreeSet<_> = self.names.files().map(|(_, file)| file).collect();
        files.into_iter().map(|file| self.content(file).room).sum()
    }

    pub(crate) fn copy(&self) -> Self {
        let contents = self.contents.iter().map(|(file, content)| (*file, content.copy()));
        Self { names: self.names.clone(), contents: contents.collect(), next_file: self.next_file }
    }

    /// Returns a hash of the names and contents.
    pub(crate) fn fingerprint(&self) -> u128 {
        let mut hasher = Xxh3::new();
        for (path, node) in &self.names.0 {
            hasher.update(path.as_encoded_bytes());
            if let Node::File(file) = node {
                let content = self.content(*file);
                // Everything after the written part is zero.
                let mut bytes = vec![0; content.written.min(index(content.size))];
                content.read_at(&mut bytes, 0);
                while bytes.last() == Some(&0) {
                    bytes.pop();
                }
                hasher.update(&content.size.to_be_bytes());
                hasher.update(&(bytes.len() as u64).to_be_bytes());
                hasher.update(&bytes);
            }
        }
        hasher.digest128()
    }

    /// Drops everything that no path leads to.
    pub(crate) fn drop_unreachable(&mut self) {
        self.names.drop_unreachable();
        let reached: BTreeSet<_> = self.names.files().map(|(_, file)| file).collect();
        self.contents.retain(|file, _| reached.contains(file));
    }
}

/// The bytes of one file.
#[derive(Default)]
pub(crate) struct Content {
    /// The last arena holds the file. The others are smaller, and are kept for the maps made of
    /// them.
    arenas: Vec<Arc<Arena>>,
    size: u64,
    /// The end of what was allocated or written.
    room: u64,
    /// The end of what was written, at most `size`. Everything after it is zero.
    written: usize,
}

impl Content {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn room(&self) -> u64 {
        self.room
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; index(self.size)];
        self.read_at(&mut bytes, 0);
        bytes
    }

    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        let size = index(self.size.saturating_sub(offset)).min(buffer.len());
        let buffer = &mut buffer[..size];
        buffer.fill(0);
        if let Some(arena) = self.arenas.last().filter(|_| size > 0) {
            arena.read(index(offset), buffer);
        }
        size
    }

    /// Maps the file so that it can grow up to the end of the map in the same arena.
    pub(crate) fn map(&mut self, size: usize) -> TwinMap {
        let arena = self.arenas.last().filter(|arena| arena.capacity() >= size).cloned();
        TwinMap::new(arena.unwrap_or_else(|| self.grow(size)), size)
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if self.arenas.last().is_none_or(|arena| arena.capacity() < end) {
            // Twice the need, so that a file which grows in small steps is not copied at each step.
            self.grow(end * 2);
        }
        for arena in &self.arenas {
            arena.write(offset, bytes);
        }
        self.written = self.written.max(end);
        self.size = self.size.max(end as u64);
        self.room = self.room.max(end as u64);
    }

    fn set_size(&mut self, size: u64) {
        self.size = size;
        self.room = self.room.min(size);
        if size >= self.written as u64 {
            return;
        }
        let cut = index(size)..self.written;
        self.written = cut.start;
        if !self.arenas.iter().all(|arena| arena.zero(cut.clone())) {
            // A map has lent some of the bytes that are cut off. The map keeps them, where the
            // kernel would kill the reader; the file moves to another arena.
            self.arenas = vec![Arc::new(self.fresh_arena(self.written))];
        }
    }

    fn allocate(&mut self, size: u64) {
        self.size = self.size.max(size);
        self.room = self.room.max(size);
    }

    /// Moves the file to a larger arena. Maps of the previous arena still see later writes.
    fn grow(&mut self, capacity: usize) -> Arc<Arena> {
        let arena = Arc::new(self.fresh_arena(capacity));
        self.arenas.retain(|arena| Arc::strong_count(arena) > 1);
        self.arenas.push(Arc::clone(&arena));
        arena
    }

    fn fresh_arena(&self, capacity: usize) -> Arena {
        let arena = Arena::new(capacity);
        let mut bytes = vec![0; self.written];
        if let Some(old) = self.arenas.last() {
            old.read(0, &mut bytes);
        }
        arena.write(0, &bytes);
        arena
    }

    /// Copies the file, but not the maps of it.
    fn copy(&self) -> Self {
        Self {
            arenas: vec![Arc::new(self.fresh_arena(self.written))],
            size: self.size,
            room: self.room,
            written: self.written,
        }
    }
}

/// Converts an offset in a file to an index in memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("tests run on 64-bit machines")
}
