//! A run: the rows of a part of a segment, sorted, and read block by block.
//!
//! - The directory of a run is in memory. Its blocks are on disk or in memory, in the same
//!   encoding.
//! - If a block is unreadable or invalid, the run rebuilds itself in memory. Only damage to the log
//!   itself, or a shortage of descriptors, is an error.
//! - The index file is kept open within the budget of descriptors, and otherwise opened for each
//!   block, since a store may have more indexes than a process may have open files. The descriptor
//!   is closed with the run, and as soon as the run is rebuilt in memory.
//! - The index of a segment without a mapping is not kept open: it would keep its space when both
//!   files are removed, while the segment may not.

use std::ops::Range;
use std::sync::Arc;

use super::block::{Block, SeekTarget};
use super::build::{Encoded, RunBuilder};
use super::directory::Directory;
use super::file::{self, HEADER_SIZE};
use crate::error::{Error, Result};
use crate::fs::{Access, File, Fs};
use crate::segment::budget::{KeptFile, take_index_descriptor};
use crate::segment::header::{Identity, SegmentHeader};
use crate::segment::hint::HintSource;
use crate::segment::read::scan::{self, Scanned};
use crate::segment::read::walk::Walk;
use crate::segment::{Dir, FIRST_OFFSET, Segment, SegmentId, open_listed};
use crate::sync::Mutex;

/// What the runs of a store need from it.
#[derive(Debug)]
pub(crate) struct IndexContext {
    pub(super) fs: Fs,
    pub(super) dir: Dir,
    identity: Identity,
}

impl IndexContext {
    pub(crate) fn new(fs: &Fs, dir: &Dir, identity: Identity) -> Arc<Self> {
        let (fs, dir) = (fs.clone(), dir.clone());
        Arc::new(Self { fs, dir, identity })
    }

    pub(super) fn source(&self, segment: &Segment) -> HintSource {
        HintSource { id: segment.id(), identity: self.identity, length: segment.size() }
    }
}

/// Where the blocks of a run are.
#[derive(Debug, Clone)]
enum Blocks {
    InMemory(Arc<Vec<u8>>),
    /// In the index, which may be kept open.
    OnDisk(Option<Arc<KeptFile>>),
    /// Nowhere: the directory of the index is valid, but does not match the segment.
    Wrong,
}

/// A sorted part of a segment's entries.
#[derive(Debug)]
pub(crate) struct Run {
    context: Arc<IndexContext>,
    id: SegmentId,
    /// The highest timestamp. For an index on disk, it is in the segment's summary.
    pub(super) time: u64,
    pub(super) directory: Directory,
    /// Lock 8: held while the blocks are rebuilt.
    blocks: Mutex<Blocks>,
}

impl Run {
    /// Opens the index of a sealed segment, if it has a usable one.
    pub(super) fn open(context: &Arc<IndexContext>, segment: &Segment) -> Result<Option<Self>> {
        let found = file::open(&context.fs, &context.dir, context.source(segment))?;
        let Some((directory, file)) = found else { return Ok(None) };
        let (id, blocks) = (segment.id(), Mutex::new(Blocks::OnDisk(keep(file, segment).ok())));
        Ok(Some(Self { context: Arc::clone(context), id, time: u64::MAX, directory, blocks }))
    }

    pub(super) fn in_memory(context: &Arc<IndexContext>, id: SegmentId, rows: RunBuilder) -> Self {
        let time = rows.time;
        let Encoded { blocks, directory } = rows.finish(id);
        let (context, blocks) =
            (Arc::clone(context), Mutex::new(Blocks::InMemory(Arc::new(blocks))));
        Self { context, id, time, directory, blocks }
    }

    /// Sorts the entries of a sealed segment.
    pub(super) fn build(context: &Arc<IndexContext>, segment: &Arc<Segment>) -> Result<Self> {
        Ok(Self::in_memory(context, segment.id(), rows_of(context, segment)?))
    }

    /// Returns the number of rows.
    pub(crate) fn rows(&self) -> u64 {
        self.directory.rows
    }

    pub(super) fn is_on_disk(&self) -> bool {
        matches!(*self.blocks.lock(), Blocks::OnDisk(_))
    }

    /// Returns the file that is kept open, if it is.
    #[cfg(test)]
    pub(super) fn kept(&self) -> Option<std::sync::Weak<dyn std::fmt::Debug>> {
        let Blocks::OnDisk(Some(kept)) = &*self.blocks.lock() else { return None };
        let weak: std::sync::Weak<dyn std::fmt::Debug> = Arc::downgrade(kept) as _;
        Some(weak)
    }

    pub(super) fn is_wrong(&self) -> bool {
        matches!(*self.blocks.lock(), Blocks::Wrong)
    }

    /// Writes an in-memory run as the index of the whole segment, and frees its memory. Returns
    /// whether it wrote anything.
    pub(super) fn write(&self, segment: &Segment) -> Result<bool> {
        let Blocks::InMemory(blocks) = self.blocks.lock().clone() else { return Ok(false) };
        let (IndexContext { fs, dir, .. }, source) = (&*self.context, self.context.source(segment));
        if !file::write(fs, dir, source, &blocks, &self.directory)? {
            return Ok(false);
        }
        if let Ok(Some((_, file))) = file::open(fs, dir, source) {
            *self.blocks.lock() = Blocks::OnDisk(keep(file, segment).ok());
        }
        Ok(true)
    }

    /// Reads a block. Returns `None` after the last one.
    pub(super) fn block(
        &self,
        number: usize,
        segment: &Arc<Segment>,
    ) -> Result<Option<Arc<Block>>> {
        if number >= self.directory.len() {
            return Ok(None);
        }
        let blocks = self.blocks.lock().clone();
        if let Some(block) = self.read(&blocks, number, segment)? {
            return Ok(Some(Arc::new(block)));
        }
        let blocks = self.rebuild(segment)?;
        match self.read(&blocks, number, segment)? {
            Some(block) => Ok(Some(Arc::new(block))),
            None => Err(self.wrong()),
        }
    }

    /// Reads a block. Returns `None` if it is unreadable or invalid. A shortage of file descriptors
    /// is an error, since the index may be intact.
    fn read(&self, blocks: &Blocks, number: usize, segment: &Segment) -> Result<Option<Block>> {
        let range = self.directory.range(number);
        let bytes = match blocks {
            Blocks::InMemory(bytes) => {
                let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
                let range = start.ok().zip(end.ok()).map(|(start, end)| start..end);
                range.and_then(|range| bytes.get(range)).map(<[u8]>::to_vec)
            }
            Blocks::OnDisk(Some(kept)) => read_from(&kept.file, range),
            Blocks::OnDisk(None) => match self.open_file(segment)? {
                Some(Ok(kept)) => read_from(&kept.file, range),
                Some(Err(file)) => read_from(&file, range),
                None => None,
            },
            Blocks::Wrong => None,
        };
        Ok(bytes.and_then(|bytes| Block::decode(bytes, self.id, number)))
    }

    /// Opens the index, and keeps it open from now on if a descriptor has become available.
    fn open_file(&self, segment: &Segment) -> Result<Option<Keeping>> {
        let file = file::open_file(&self.context.fs, &self.context.dir, self.id)?;
        let Some(keeping) = file.map(|file| keep(file, segment)) else { return Ok(None) };
        if let Ok(kept) = &keeping
            && let Blocks::OnDisk(none @ None) = &mut *self.blocks.lock()
        {
            *none = Some(Arc::clone(kept));
        }
        Ok(Some(keeping))
    }

    /// Rebuilds all blocks in memory, unless another thread has just done that.
    fn rebuild(&self, segment: &Arc<Segment>) -> Result<Blocks> {
        let mut blocks = self.blocks.lock();
        if let Blocks::OnDisk(_) = *blocks {
            let encoded = rows_of(&self.context, segment)?.finish(self.id);
            *blocks = if encoded.directory == self.directory {
                Blocks::InMemory(Arc::new(encoded.blocks))
            } else {
                Blocks::Wrong
            };
        }
        Ok(blocks.clone())
    }

    fn wrong(&self) -> Error {
        let reason = "the index is intact but does not match its segment; delete it";
        Error::corrupt(&self.context.dir.index(self.id), 0, reason)
    }

    /// Returns the newest row of a key with a timestamp up to this one.
    pub(super) fn find(
        &self,
        target: SeekTarget<'_>,
        segment: &Arc<Segment>,
    ) -> Result<Option<(Arc<Block>, usize)>> {
        if !self.directory.covers(target.key) {
            return Ok(None);
        }
        // The last block that begins before the place, or the first possible one.
        let mut blocks = self.directory.blocks_of(target.key);
        while blocks.len() > 1 {
            let middle = blocks.start + blocks.len() / 2;
            let block = self.block(middle, segment)?;
            if block.is_some_and(|block| target.is_behind(&block.row(0))) {
                blocks.start = middle;
            } else {
                blocks.end = middle;
            }
        }
        // The row after a block's last one is the first row of the next block.
        for number in [blocks.start, blocks.start + 1] {
            let Some(block) = self.block(number, segment)? else { break };
            let at = block.len_before(&target);
            if at < block.len() {
                let is_found = block.row(at).key == target.key;
                return Ok(is_found.then_some((block, at)));
            }
            if self.directory.key(number + 1) > target.key {
                break;
            }
        }
        Ok(None)
    }
}

/// A file that is kept open, or one that is not.
type Keeping = std::result::Result<Arc<KeptFile>, File>;

/// Keeps an index open if its segment has a mapping and the budget allows it.
fn keep(file: File, segment: &Segment) -> Keeping {
    match segment.is_mapped().then(take_index_descriptor).flatten() {
        Some(unit) => Ok(Arc::new(KeptFile::new(file, unit))),
        None => Err(file),
    }
}

/// Reads a block. Returns `None` if it can't be read.
fn read_from(file: &File, range: Range<u64>) -> Option<Vec<u8>> {
    let size = usize::try_from(range.end - range.start).ok()?;
    let mut bytes = vec![0; size];
    let read = file.read_at(&mut bytes, HEADER_SIZE as u64 + range.start);
    (read.ok()? == size).then_some(bytes)
}

/// Returns whether the index of a sealed segment matches the segment to the last byte. Returns
/// `None` if there is no index, or if a value that this build can't read prevents the comparison.
pub(crate) fn compare_index(fs: &Fs, dir: &Dir, source: HintSource) -> Result<Option<bool>> {
    let Some(file) = fs.open_if_exists(&dir.index(source.id))? else { return Ok(None) };
    let log = open_listed(fs, &dir.log(source.id))?;
    let mut builder = RunBuilder::default();
    match scan::for_each_sealed(&log, source.id, source.length, |entry| builder.add(&entry)) {
        Err(error) if error.is_unsupported() => return Ok(None),
        scanned => scanned?,
    };
    let expected = builder.finish(source.id).encode(source);
    if file.size()? != expected.len() as u64 {
        return Ok(Some(false));
    }
    let mut found = vec![0; expected.len()];
    // An index that can't be read does not match.
    Ok(Some(file.read_at(&mut found, 0).is_ok() && found == expected))
}

/// Collects the entries of a segment from its file. If the file is gone, can't be opened, or has
/// values that this build can't read, collects them from the segment's readable bytes.
pub(super) fn rows_of(context: &IndexContext, segment: &Arc<Segment>) -> Result<RunBuilder> {
    let (id, end) = (segment.id(), segment.size());
    let file = context.fs.open(&context.dir.log(id), Access::Read);
    // If the directory now belongs to another store, the segment's own file is gone.
    let own = file.and_then(|file| SegmentHeader::read(&file, id, context.identity).map(|_| file));
    if let Ok(file) = own {
        let mut builder = RunBuilder::default();
        match scan::for_each_sealed(&file, id, end, |entry| builder.add(&entry)) {
            Ok(_) => return Ok(builder),
            Err(Error::UnsupportedCodec { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let mut builder = RunBuilder::default();
    add_walked(&mut builder, segment, FIRST_OFFSET, end)?;
    Ok(builder)
}

/// Adds the entries of a part of a segment, from its readable bytes.
pub(super) fn add_walked(
    builder: &mut RunBuilder,
    segment: &Arc<Segment>,
    start: u64,
    end: u64,
) -> Result<()> {
    let mut walk = Walk::new(segment, start);
    while let Some(stored) = walk.next(end)? {
        let (offset, header) = (stored.offset, stored.header()?);
        builder.add(&Scanned { offset, header, key: stored.entry().key() });
    }
    Ok(())
}
