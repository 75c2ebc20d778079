//! The file that the next manifest is written to, so that replacing one takes no room and no inode.
//!
//! - It lies beside the manifest, with room set aside for twice what the manifest needs. A new manifest is
//!   written into it and synced; then the two files exchange their names, as one step, and the old
//!   manifest is the next spare.
//! - Nothing is written into it before it is durable that it is not the manifest. A process that has just
//!   opened the store can't know what its predecessor has exchanged and not synced, so it syncs the
//!   directory first; after a sync that failed nobody can know, and a fresh file is written as it is done
//!   where there is no spare.
//! - What is in it is never read. It can be removed, and made anew from nothing.

use crate::error::Result;
use crate::fs::{self, Access, Fs};
use crate::mistake::{Mistake, made};
use crate::segment::{Dir, sidecar};

/// Files take up room in blocks of this size, or less.
const BLOCK: u64 = 4096;

/// What is known of the two names.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spare {
    /// An exchange of an earlier process may not be durable.
    #[default]
    Unsettled,
    /// They are durable as they are.
    Settled,
    /// A sync has failed.
    Lost,
}

impl Spare {
    /// Replaces the manifest. Where there is no room for that, files that can be derived are given up.
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
            // Whatever it is that has this name can't be used.
            Err(_) => return replace_by_fresh(fs, dir, bytes),
        }
        if made(Mistake::SpareInPlace) {
            return Ok(());
        }
        let (path, spare) = (dir.manifest(), dir.spare());
        let is_exchanged = fs.exchange_and_sync(&spare, &path, !made(Mistake::RenameNotSynced))?;
        *self = Self::Settled;
        if !is_exchanged {
            // The room that the old manifest took is free now. Without a spare there is one more try at
            // the next time.
            let made = fs.open(&spare, Access::Keep);
            let _ = made.and_then(|file| file.reserve(room_for(bytes.len() as u64)));
        }
        Ok(())
    }
}

/// Returns how much is set aside where a manifest has this size, for what it may grow to.
pub(super) fn room_for(size: u64) -> u64 {
    (2 * size).next_multiple_of(BLOCK)
}

/// Writes what is to be the manifest, durably.
fn write(fs: &Fs, dir: &Dir, bytes: &[u8]) -> Result<()> {
    let path = if made(Mistake::SpareInPlace) { dir.manifest() } else { dir.spare() };
    if !fs.is_sole_file(&path)? {
        // Something else leads to it, a copy of the directory made of links perhaps.
        fs.remove(&path)?;
    }
    let file = fs.open(&path, Access::Keep)?;
    file.write_within_limit(bytes, 0)?;
    let size = bytes.len() as u64;
    if file.size()? != size {
        file.set_size(size)?;
    }
    // Also what the cut has given up. It will do without, as long as the manifest does not grow.
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

    /// The text of a manifest, longer or shorter than the one before it.
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

    /// A store's first manifest, and no spare.
    fn created() -> Arc<Twin> {
        let twin = Twin::new();
        replace_by_fresh(&disk(&twin), &dir(), &text(0)).unwrap();
        twin
    }

    /// Sees to it that after a crash anywhere from an operation on, whatever of the rest is kept, there is
    /// one of some manifests.
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
                    let told = String::from_utf8_lossy(&found).into_owned();
                    assert!(texts.contains(&found), "after {ops} operations: {told}");
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

    /// A process died between exchange and sync, and power fails while its successor replaces the manifest:
    /// the successor had written to what the disk still took for the manifest.
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
    fn a_successor_writes_to_no_file_that_may_still_be_the_manifest() {
        crash_of_a_successor();
        assert!(make(Mistake::SpareUnsettled, crash_of_a_successor).is_err(), "it is noticed");
    }

    #[test]
    fn behind_a_sync_that_failed_a_fresh_file_is_written() {
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
    fn a_full_disk_takes_any_number_of_manifests_once_there_is_a_spare() {
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
                    // There was no room for the next spare.
                    return;
                }
            }
        }
    }

    #[test]
    fn without_a_spare_a_full_disk_gives_up_what_can_be_derived() {
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
        assert!(!files.contains(&dir().index(id)), "it is missed least");
    }

    #[test]
    fn what_has_a_second_name_is_no_spare() {
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
    fn a_spare_that_can_t_be_written_is_done_without() {
        let twin = created();
        twin.create_dir(&dir().spare()).unwrap();
        let mut spare = Spare::default();
        for number in 1..4 {
            spare.replace(&disk(&twin), &dir(), &text(number)).unwrap();
            assert_eq!(on_disk(&twin).unwrap(), text(number));
        }
    }
}
