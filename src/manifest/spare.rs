//! The file to which the next manifest is written, so that replacing the manifest needs no space
//! and no inode.
//!
//! - The spare is in the manifest's directory, with space reserved for twice what the manifest
//!   needs. A new manifest is written into it and synced. Then the two files exchange their names
//!   in one step, and the old manifest becomes the next spare.
//! - The spare is written only once it is durable that it is not the manifest. A process that has
//!   just opened the store can't know whether its predecessor's last exchange was synced, so it
//!   syncs the directory first. After a failed sync the durable names can't be known at all. Then a
//!   fresh file is written, as if there were no spare.
//! - The content of the spare is never read. It can be removed, and is then recreated from nothing.

use crate::error::Result;
use crate::fs::{self, Access, Fs};
use crate::mistake::{Mistake, made};
use crate::segment::{Dir, sidecar};

/// Assumed block size of files, in bytes; actual blocks may be smaller.
const BLOCK: u64 = 4096;

/// What is known of the two names.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spare {
    /// An exchange by an earlier process may not be durable.
    #[default]
    Unsettled,
    /// The names are durable as they are.
    Settled,
    /// A sync has failed.
    Lost,
}

impl Spare {
    /// Replaces the manifest. If there is no space for that, gives up files that can be derived
    /// again.
    pub(super) fn replace(&mut self, fs: &Fs, dir: &Dir, bytes: &[u8]) -> Result<()> {
        let result = sidecar::making_room(fs, dir, || self.try_to_replace(fs, dir, bytes));
        match &result {
            Err(error) if fs::is_failed_sync(error) => *self = Self::Lost,
            Err(_) => *self = Self::Unsettled,
            Ok(()) => {}
        }
        result
    }

    fn try_to_replace(&mut self, fs: &Fs, dir: &Dir, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Lost => return replace_by_fresh(fs, dir, bytes),
            Self::Unsettled if !made(Mistake::SpareUnsettled) => fs.sync_dir(dir.path())?,
            Self::Unsettled | Self::Settled => {}
        }
        match write(fs, dir, bytes) {
            Ok(()) => {}
            Err(error) if error.is_no_space() || fs::is_failed_sync(&error) => return Err(error),
            // Whatever has this name can't be used.
            Err(_) => return replace_by_fresh(fs, dir, bytes),
        }
        if made(Mistake::SpareInPlace) {
            return Ok(());
        }
        let (path, spare) = (dir.manifest(), dir.spare());
        let is_exchanged = fs.exchange_and_sync(&spare, &path, !made(Mistake::RenameNotSynced))?;
        *self = Self::Settled;
        if !is_exchanged {
            // The space of the old manifest is free now. If no spare can be made, the next call
            // tries again.
            let made = fs.open(&spare, Access::Keep);
            let _ = made.and_then(|file| file.reserve(room_for(bytes.len() as u64)));
        }
        Ok(())
    }
}

/// Returns how much space is reserved for a manifest of this size to grow into.
pub(super) fn room_for(size: u64) -> u64 {
    (2 * size).next_multiple_of(BLOCK)
}

/// Writes the next manifest's content, durably.
fn write(fs: &Fs, dir: &Dir, bytes: &[u8]) -> Result<()> {
    let path = if made(Mistake::SpareInPlace) { dir.manifest() } else { dir.spare() };
    if !fs.is_sole_file(&path)? {
        // Another name leads to it too, perhaps in a copy of the directory made of links.
        fs.remove(&path)?;
    }
    let file = fs.open(&path, Access::Keep)?;
    file.write_within_limit(bytes, 0)?;
    let size = bytes.len() as u64;
    if file.size()? != size {
        file.set_size(size)?;
    }
    // This includes the space that the truncation has freed. If it fails, the spare still suffices
    // as long as the manifest does not grow.
    let _ = file.reserve(room_for(size));
    if made(Mistake::ManifestNotSynced) { Ok(()) } else { file.sync() }
}

fn replace_by_fresh(fs: &Fs, dir: &Dir, bytes: &[u8]) -> Result<()> {
    let path = dir.manifest();
    fs.replace(&path, &Dir::temporary(&path), bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::manifest::Manifest;
    use crate::mistake::make;
    use crate::segment::SegmentId;
    use crate::segment::header::Identity;
    use crate::testing::twin::{Kept, Op, Twin};

    fn dir() -> Dir {
        Dir::new("/".into())
    }

    fn disk(twin: &Arc<Twin>) -> Fs {
        Fs::Twin(Arc::clone(twin))
    }

    /// Returns the text of a manifest. Consecutive ones alternate between longer and shorter.
    fn text(number: u32) -> Vec<u8> {
        let mut manifest =
            Manifest::new(Identity { store_id: u64::from(number) << 56, hash_seed: 2 });
        manifest.bound =
            SegmentId(if number.is_multiple_of(2) { number } else { 1_000_000 + number });
        manifest.encode().into_bytes()
    }

    fn on_disk(twin: &Arc<Twin>) -> Option<Vec<u8>> {
        let file = disk(twin).open_if_exists(&dir().manifest()).unwrap();
        file.map(|file| fs::read_whole(&file, 1 << 20).unwrap())
    }

    /// Creates a store's first manifest, and no spare.
    fn created() -> Arc<Twin> {
        let twin = Twin::new();
        replace_by_fresh(&disk(&twin), &dir(), &text(0)).unwrap();
        twin
    }

    /// Checks that after a crash at any point from an operation on, whatever was kept of the rest,
    /// one of the given manifests is on disk.
    fn judge(twin: &Arc<Twin>, from: usize, texts: &[Vec<u8>]) {
        for ops in from..=twin.op_count() {
            let unsynced = twin.unsynced(ops).len();
            let selections = 1_u32 << unsynced.min(12);
            for selection in 0..selections {
                for part in [Kept::All, Kept::Size, Kept::part(0..30)] {
                    let mut at = 0;
                    let image = twin.torn_image(ops, |_| {
                        at += 1;
                        if selection >> (at - 1).min(11) & 1 == 1 {
                            part.clone()
                        } else {
                            Kept::Nothing
                        }
                    });
                    let found = on_disk(&image).unwrap();
                    let content = String::from_utf8_lossy(&found).into_owned();
                    assert!(texts.contains(&found), "after {ops} operations: {content}");
                }
            }
        }
    }

    #[test]
    fn a_crash_anywhere_leaves_the_old_manifest_or_the_new_one() {
        for has_exchanges in [true, false] {
            let twin = created();
            if !has_exchanges {
                twin.refuse_exchanges();
            }
            let mut spare = Spare::default();
            for number in 1..5 {
                let from = twin.op_count();
                spare.replace(&disk(&twin), &dir(), &text(number)).unwrap();
                assert_eq!(on_disk(&twin).unwrap(), text(number));
                judge(&twin, from, &[text(number - 1), text(number)]);
                assert!(twin.files().contains(&dir().spare()), "the next one needs no new file");
            }
        }
    }

    /// A process died between exchange and sync, and power fails while its successor replaces the
    /// manifest. A successor that did not sync first would have written to the file that is still
    /// the manifest on disk.
    fn crash_of_a_successor() {
        let twin = created();
        let mut spare = Spare::default();
        for number in 1..4 {
            spare.replace(&disk(&twin), &dir(), &text(number)).unwrap();
        }
        let exchanged = twin.trace().iter().rposition(|op| matches!(op, Op::Exchange { .. }));
        let twin = twin.killed(exchanged.unwrap() + 1);
        let from = twin.op_count();
        Spare::default().replace(&disk(&twin), &dir(), &text(4)).unwrap();
        judge(&twin, from, &[text(2), text(3), text(4)]);
    }

    #[test]
    fn a_successor_does_not_write_to_a_file_that_may_still_be_the_manifest() {
        crash_of_a_successor();
        assert!(make(Mistake::SpareUnsettled, crash_of_a_successor).is_err(), "not noticed");
    }

    #[test]
    fn after_a_failed_sync_a_fresh_file_is_written() {
        use crate::testing::twin::{Call, Fault, FaultKind};
        for call in [Call::Sync, Call::SyncDir] {
            let twin = created();
            let mut spare = Spare::default();
            spare.replace(&disk(&twin), &dir(), &text(1)).unwrap();
            twin.fail(Fault::new(FaultKind::Eio).only(call));
            let error = spare.replace(&disk(&twin), &dir(), &text(2)).unwrap_err();
            assert!(fs::is_failed_sync(&error), "{error}");
            spare.replace(&disk(&twin), &dir(), &text(3)).unwrap();
            let is_fresh =
                |op: &Op| matches!(op, Op::Create { path, .. } if path.ends_with("MANIFEST.tmp"));
            assert!(twin.trace().iter().skip(twin.op_count() - 5).any(is_fresh));
            assert_eq!(on_disk(&twin).unwrap(), text(3));
        }
    }

    #[test]
    fn with_a_spare_a_full_disk_takes_any_number_of_manifests() {
        for has_exchanges in [true, false] {
            let twin = created();
            if !has_exchanges {
                twin.refuse_exchanges();
            }
            let mut spare = Spare::default();
            spare.replace(&disk(&twin), &dir(), &text(1)).unwrap();
            spare.replace(&disk(&twin), &dir(), &text(2)).unwrap();
            twin.set_space(0);
            for number in 3..20 {
                spare.replace(&disk(&twin), &dir(), &text(number)).unwrap();
                assert_eq!(on_disk(&twin).unwrap(), text(number));
                if !has_exchanges {
                    // There was no space for the next spare.
                    return;
                }
            }
        }
    }

    #[test]
    fn without_a_spare_a_full_disk_costs_files_that_can_be_derived_again() {
        let twin = created();
        let id = SegmentId(1);
        for path in [dir().hint(id), dir().index(id), dir().log(id)] {
            twin.put_file(&path, vec![1; 5000]);
        }
        twin.set_space(0);
        Spare::default().replace(&disk(&twin), &dir(), &text(1)).unwrap_err();
        twin.put_file(&dir().hint(id), vec![1; 5000]);
        twin.put_file(&dir().index(id), vec![1; 5000]);
        twin.set_space(15_000);
        Spare::default().replace(&disk(&twin), &dir(), &text(1)).unwrap();
        assert_eq!(on_disk(&twin).unwrap(), text(1));
        let files = twin.files();
        assert!(files.contains(&dir().log(id)) && files.contains(&dir().hint(id)));
        assert!(!files.contains(&dir().index(id)), "the index is the least valuable");
    }

    #[test]
    fn a_file_with_a_second_name_is_not_used_as_spare() {
        let twin = created();
        let mut spare = Spare::default();
        for number in 1..3 {
            spare.replace(&disk(&twin), &dir(), &text(number)).unwrap();
        }
        let copy = Path::new("/copy");
        twin.link(&dir().manifest(), copy).unwrap();
        for number in 3..6 {
            spare.replace(&disk(&twin), &dir(), &text(number)).unwrap();
        }
        assert_eq!(twin.contents(copy).unwrap(), text(2));
        assert_eq!(on_disk(&twin).unwrap(), text(5));
    }

    #[test]
    fn an_unwritable_spare_is_not_needed() {
        let twin = created();
        twin.create_dir(&dir().spare()).unwrap();
        let mut spare = Spare::default();
        for number in 1..4 {
            spare.replace(&disk(&twin), &dir(), &text(number)).unwrap();
            assert_eq!(on_disk(&twin).unwrap(), text(number));
        }
    }
}
