//! Making the end of the log the end of the files: set aside, remove, cut, seal.

use std::path::PathBuf;

use super::chain::{Chain, Link};
use super::{Cut, Recovery};
use crate::error::Result;
use crate::fs::{Access, File};
use crate::manifest::{Manifest, Sealed};
use crate::segment::header::Kind;
use crate::segment::hint::{Hint, Source};
use crate::segment::{FIRST_OFFSET, Place, SegmentId, scan};

const COPY_SIZE: usize = 256 << 10;

impl Chain {
    /// Tells what lies behind the end of the log in the segment where it ends.
    pub(super) fn cuts(&self) -> Result<Vec<Cut>> {
        match self.links.last() {
            Some(last) => Ok(Vec::from_iter(behind(&last.file, last.end, self.reason)?)),
            None => Ok(Vec::new()),
        }
    }
}

impl Recovery<'_> {
    /// Sets aside what lies behind the end of the log, and removes the segments there.
    ///
    /// The youngest goes first, so that what is left after a crash still lies behind the end.
    pub(super) fn cut(&self, chain: &Chain, later: &[(SegmentId, File)]) -> Result<Vec<Cut>> {
        let mut cuts = chain.cuts()?;
        for (_, file) in later {
            if scan::end_of_content(file, FIRST_OFFSET)? > FIRST_OFFSET {
                cuts.extend(behind(file, 0, chain.reason)?);
            }
        }
        let files = chain.links.last().map(|last| (last.id, &last.file)).into_iter();
        let files = files.chain(later.iter().map(|(id, file)| (*id, file)));
        for cut in &mut cuts {
            let file = files.clone().find(|(_, file)| file.path() == cut.path);
            if let Some((id, file)) = file {
                let place = Place::new(id, cut.offset);
                cut.quarantine = Some(self.set_aside(file, place, cut.size)?);
            }
        }
        for (_, file) in later.iter().rev() {
            self.fs.remove(file.path())?;
        }
        if !later.is_empty() {
            self.fs.sync_dir(self.dir.path())?;
        }
        Ok(cuts)
    }

    /// Copies the bytes behind a place to the quarantine, durably.
    fn set_aside(&self, file: &File, place: Place, size: u64) -> Result<PathBuf> {
        let quarantine = self.dir.quarantine();
        self.fs.create_dir(&quarantine)?;
        self.fs.sync_dir(self.dir.path())?;
        let path = self.dir.quarantined(place);
        let copy = self.fs.open(&path, Access::Create)?;
        let mut buffer = vec![0; COPY_SIZE];
        let mut copied = 0;
        while copied < size {
            let wanted = usize::try_from(size - copied).unwrap_or(COPY_SIZE).min(COPY_SIZE);
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            let read_size = file.read_at(part, place.offset + copied)?;
            if read_size == 0 {
                break;
            }
            copy.write_at(part.get(..read_size).unwrap_or_default(), copied)?;
            copied += read_size as u64;
        }
        copy.sync()?;
        self.fs.sync_dir(&quarantine)?;
        Ok(path)
    }

    /// Cuts all unsealed segments to their ends, and seals them with one manifest write.
    pub(super) fn seal(&self, chain: &Chain, manifest: &mut Manifest) -> Result<()> {
        let (full, empty): (Vec<_>, Vec<_>) = chain.links.iter().partition(|link| link.entries > 0);
        for Link { id, file, end, .. } in full {
            let file = self.fs.open(file.path(), Access::Write)?;
            if file.size()? != *end {
                file.set_size(*end)?;
                file.sync()?;
            }
            let source = Source { id: *id, identity: manifest.identity, length: *end };
            self.write_hint(&Hint::build(&file, source, |key| self.keydir.hash(key))?, source)?;
            manifest.sealed.push(Sealed { id: *id, kind: Kind::Log, length: *end });
        }
        self.fs.sync_dir(self.dir.path())?;
        manifest.log = manifest.bound;
        manifest.log_exists = false;
        manifest.write(self.fs, self.dir)?;
        let empty: Vec<PathBuf> = empty.into_iter().map(|link| self.dir.log(link.id)).collect();
        self.remove(&empty)
    }
}

/// Tells what lies behind an offset of a segment, if there is anything but zeros.
fn behind(file: &File, offset: u64, reason: &str) -> Result<Option<Cut>> {
    let size = scan::end_of_content(file, offset)? - offset;
    Ok((size > 0).then(|| Cut {
        path: file.path().to_path_buf(),
        offset,
        size,
        quarantine: None,
        reason: reason.to_owned(),
    }))
}
