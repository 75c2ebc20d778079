//! Makes the end of the log the end of the files: sets aside, removes, cuts, seals.

use std::path::PathBuf;

use super::chain::{Chain, Link};
use super::{Cut, Recovery};
use crate::error::Result;
use crate::fs::{Access, File};
use crate::manifest::{Manifest, Sealed};
use crate::segment::header::Kind;
use crate::segment::read::scan;
use crate::segment::{FIRST_OFFSET, Place, SegmentId, sidecar};

/// Bytes of unsealed segments that are not entries of the log.
#[derive(Debug)]
pub(super) struct Unread<'a> {
    file: &'a File,
    place: Place,
    /// Trailing zeros do not count.
    size: u64,
    reason: &'static str,
}

impl Unread<'_> {
    /// Returns the report on these bytes, as long as they are not set aside.
    pub(super) fn cut(&self) -> Cut {
        Cut {
            path: self.file.path().to_path_buf(),
            offset: self.place.offset,
            size: self.size,
            quarantine: None,
            reason: self.reason.to_owned(),
        }
    }
}

impl Chain {
    /// Returns the unreadable bytes: everything after the end of the log, and whatever follows
    /// earlier end entries. A later segment that has only a header does not count.
    pub(super) fn unread<'a>(&'a self, later: &'a [(SegmentId, File)]) -> Result<Vec<Unread<'a>>> {
        let last = self.links.last().map(|link| link.id);
        let links = self.links.iter().map(|link| {
            let rotated = Some(link.id) < last;
            let reason = if rotated { "more bytes follow the end entry" } else { self.reason };
            (&link.file, Place::new(link.id, link.end), link.end, reason)
        });
        let after = later.iter().map(|(id, file)| {
            let reason = "the log ends in an earlier segment";
            (file, Place::new(*id, 0), FIRST_OFFSET, reason)
        });
        let mut unread = Vec::new();
        for (file, place, content_from, reason) in links.chain(after) {
            let end = scan::end_of_content(file, content_from)?;
            if end > content_from {
                unread.push(Unread { file, place, size: end - place.offset, reason });
            }
        }
        Ok(unread)
    }
}

impl Recovery<'_> {
    /// Sets the unreadable bytes aside, and removes the segments after the end of the log.
    ///
    /// The youngest segment is removed first, so that the remaining ones are still after the end if
    /// a crash interrupts this.
    pub(super) fn cut(&self, chain: &Chain, later: &[(SegmentId, File)]) -> Result<Vec<Cut>> {
        for (_, file) in later {
            // If this is interrupted and run again, it must set the same bytes aside.
            file.sync()?;
        }
        let mut cuts = Vec::new();
        for unread in chain.unread(later)? {
            let quarantine = Some(self.set_aside(&unread)?);
            cuts.push(Cut { quarantine, ..unread.cut() });
        }
        for (_, file) in later.iter().rev() {
            self.fs.remove(file.path())?;
        }
        if !later.is_empty() {
            self.fs.sync_dir(self.dir.path())?;
        }
        Ok(cuts)
    }

    /// Copies unreadable bytes to the quarantine, durably.
    fn set_aside(&self, Unread { file, place, size, .. }: &Unread<'_>) -> Result<PathBuf> {
        let quarantine = self.dir.quarantine();
        let path = self.dir.quarantined(*place);
        sidecar::making_room(self.fs, self.dir, || {
            self.fs.create_dir(&quarantine)?;
            self.fs.sync_dir(self.dir.path())?;
            let copy = self.fs.open(&path, Access::Create)?;
            file.copy_to(&copy, place.offset, *size)?;
            copy.sync()
        })?;
        self.fs.sync_dir(&quarantine)?;
        Ok(path)
    }

    /// Cuts all unsealed segments to their ends, and seals them with one manifest write. Their
    /// hints can be written later: lost ones are rebuilt.
    pub(super) fn seal(&self, chain: &Chain, manifest: &mut Manifest) -> Result<()> {
        let is_empty = |link: &&Link| link.hint.summary.entries == 0;
        let (empty, full): (Vec<_>, Vec<_>) = chain.links.iter().partition(is_empty);
        for Link { id, file, end, .. } in full {
            let file = self.fs.open(file.path(), Access::Write)?;
            if file.size()? != *end {
                file.set_size(*end)?;
                file.sync()?;
            }
            manifest.sealed.push(Sealed { id: *id, kind: Kind::Log, length: *end });
        }
        for Link { hint, .. } in &empty {
            // It may contain marks, which have times too.
            manifest.note_time(hint.summary.last_timestamp);
        }
        manifest.log = manifest.bound;
        manifest.log_exists = false;
        manifest.put_in_place(self.fs, self.dir)?;
        let empty: Vec<PathBuf> = empty.into_iter().map(|link| self.dir.log(link.id)).collect();
        self.remove(&empty)
    }
}
