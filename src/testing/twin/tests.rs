//! Tests that the twin does what its documentation says, since crash tests rely on it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Call, Fault, FaultKind, Op, Twin, TwinFile, Unsynced};
use crate::fs::{Access, DirEntry, Fs};

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn create(twin: &Arc<Twin>, name: &str) -> TwinFile {
    twin.open(path(name), Access::Create).unwrap()
}

fn kind<T: std::fmt::Debug>(result: std::io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Creates a file whose name and content are durable, so that a test can spoil either.
fn durable(twin: &Arc<Twin>, name: &str, bytes: &[u8]) -> TwinFile {
    let file = create(twin, name);
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
    twin.sync_dir(path(name).parent().unwrap()).unwrap();
    file
}

/// Returns the disk after the harshest power cut at the end of the trace.
fn cut(twin: &Twin) -> Arc<Twin> {
    twin.power_image(twin.op_count(), |_| false)
}

#[test]
fn names_resolve_as_on_unix() {
    let twin = Twin::new();
    assert!(twin.is_dir(path("/")).unwrap());
    assert_eq!(kind(twin.open(path("/none"), Access::Read)), ErrorKind::NotFound);
    assert_eq!(kind(twin.open(path("/none"), Access::Write)), ErrorKind::NotFound);
    assert_eq!(kind(twin.open(path("/none/a"), Access::Create)), ErrorKind::NotFound);
    assert_eq!(kind(twin.is_dir(path("/none"))), ErrorKind::NotFound);
    assert_eq!(kind(twin.create_dir(path("/none/d"))), ErrorKind::NotFound);
    twin.create_dir(path("/d")).unwrap();
    assert_eq!(kind(twin.create_dir(path("/d"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(twin.open(path("/d"), Access::Write)), ErrorKind::IsADirectory);
    assert_eq!(kind(twin.open(path("/d"), Access::Create)), ErrorKind::IsADirectory);
    assert_eq!(kind(twin.remove(path("/d"))), ErrorKind::IsADirectory);
    create(&twin, "/d/a");
    assert_eq!(kind(twin.open(path("/d/a"), Access::CreateNew)), ErrorKind::AlreadyExists);
    assert_eq!(kind(twin.open(path("/d"), Access::CreateNew)), ErrorKind::AlreadyExists);
    assert_eq!(kind(twin.open(path("/none/a"), Access::CreateNew)), ErrorKind::NotFound);
    twin.open(path("/d/new"), Access::CreateNew).unwrap().write_all_at(b"new", 0).unwrap();
    twin.remove(path("/d/new")).unwrap();
    assert!(!twin.is_dir(path("/d/a")).unwrap());
    assert_eq!(kind(twin.is_dir(path("/d/a/b"))), ErrorKind::NotADirectory);
    assert_eq!(kind(twin.open(path("/d/a/b"), Access::Create)), ErrorKind::NotADirectory);
    assert_eq!(kind(twin.create_dir(path("/d/a/b"))), ErrorKind::NotADirectory);
    assert_eq!(kind(twin.list(path("/d/a"))), ErrorKind::NotADirectory);
    assert_eq!(kind(twin.list(path("/none"))), ErrorKind::NotFound);
    assert_eq!(kind(twin.rename(path("/none"), path("/b"))), ErrorKind::NotFound);
    assert_eq!(kind(twin.rename(path("/d/a"), path("/d"))), ErrorKind::IsADirectory);
    let entry = |name: &str, is_file| DirEntry { name: name.into(), is_file };
    assert_eq!(twin.list(path("/")).unwrap(), [entry("d", false)]);
    assert_eq!(twin.list(path("/d")).unwrap(), [entry("a", true)]);
}

#[test]
fn a_file_reads_as_written_with_zeros_in_its_gaps() {
    let twin = Twin::new();
    let file = create(&twin, "/a");
    file.write_all_at(b"one", 2).unwrap();
    file.set_size(8).unwrap();
    assert_eq!(twin.contents(path("/a")).unwrap(), b"\0\0one\0\0\0");
    let mut buffer = [9; 4];
    assert_eq!(file.read_at(&mut buffer, 6).unwrap(), 2);
    assert_eq!(buffer, [0, 0, 9, 9]);
    assert_eq!(file.read_at(&mut buffer, 8).unwrap(), 0);
    // Truncated bytes do not come back.
    file.set_size(3).unwrap();
    file.allocate(5).unwrap();
    assert_eq!(twin.contents(path("/a")).unwrap(), b"\0\0o\0\0");
    file.allocate(1).unwrap();
    assert_eq!(file.size().unwrap(), 5);
    let keeper = twin.open(path("/a"), Access::Keep).unwrap();
    assert_eq!(keeper.size().unwrap(), 5);
    twin.open(path("/b"), Access::Keep).unwrap().write_all_at(b"x", 0).unwrap();
    assert_eq!(twin.contents(path("/b")).unwrap(), b"x");
    let reader = twin.open(path("/a"), Access::Read).unwrap();
    assert!(reader.write_all_at(b"x", 0).is_err());
    create(&twin, "/a");
    assert_eq!(reader.size().unwrap(), 0);
}

#[test]
fn a_map_sees_later_writes() {
    // Miri keeps a record of every byte.
    let end = if cfg!(miri) { 16 << 10 } else { 64 << 20 };
    let twin = Twin::new();
    let file = create(&twin, "/a");
    let small = file.map(8).unwrap();
    let map = file.map(end).unwrap();
    file.write_all_at(b"head", 0).unwrap();
    assert_eq!(map.bytes(0..4).unwrap(), b"head");
    file.allocate(1 << 20).unwrap();
    let lent = map.bytes(0..4).unwrap();
    file.write_all_at(b"tail", 4).unwrap();
    file.write_all_at(b"!!", end as u64 - 2).unwrap();
    assert_eq!(map.clone().bytes(4..8).unwrap(), b"tail");
    assert_eq!(map.bytes(end - 2..end).unwrap(), b"!!");
    assert_eq!(lent, b"head");
    // The file has since moved to a larger arena, and to a third. The first map still follows it.
    file.write_all_at(b"end", end as u64).unwrap();
    file.write_all_at(b"more", 8).unwrap();
    assert_eq!(small.bytes(0..8).unwrap(), b"headtail");
    assert_eq!(map.bytes(8..12).unwrap(), b"more");
    assert!(small.bytes(0..9).is_none());
    assert!(map.bytes(end - 1..end + 1).is_none());
    assert_eq!(small.bytes(8..8).unwrap(), b"");
}

#[test]
fn a_map_is_read_while_other_threads_write() {
    let twin = Twin::new();
    let file = create(&twin, "/a");
    let map = file.map(4096).unwrap();
    let count = if cfg!(miri) { 16 } else { 1024_u32 };
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for at in 0..count {
                file.write_all_at(&at.to_be_bytes(), u64::from(at) * 4).unwrap();
                sender.send(at).unwrap();
            }
        });
        for at in receiver {
            let start = at as usize * 4;
            assert_eq!(map.bytes(start..start + 4).unwrap(), at.to_be_bytes());
        }
    });
}

#[test]
#[should_panic(expected = "rewritten after being lent")]
fn rewriting_lent_bytes_is_refused() {
    let file = create(&Twin::new(), "/a");
    file.write_all_at(b"0123456789", 0).unwrap();
    let map = file.map(10).unwrap();
    assert!(map.bytes(2..4).is_some() && map.bytes(6..8).is_some() && map.bytes(3..7).is_some());
    file.write_all_at(b"ab", 0).unwrap();
    file.write_all_at(b"ij", 8).unwrap();
    file.write_all_at(b"c", 5).unwrap();
}

#[test]
fn a_truncation_leaves_lent_bytes_to_their_map() {
    let twin = Twin::new();
    let file = create(&twin, "/a");
    file.write_all_at(b"0123456789", 0).unwrap();
    let map = file.map(16).unwrap();
    // These bytes were not lent, so the map sees the truncation and what comes after it.
    file.set_size(8).unwrap();
    file.write_all_at(b"xy", 9).unwrap();
    let lent = map.bytes(4..11).unwrap();
    assert_eq!(lent, b"4567\0xy");
    file.set_size(6).unwrap();
    file.write_all_at(b"new", 6).unwrap();
    assert_eq!(lent, b"4567\0xy");
    assert_eq!(twin.contents(path("/a")).unwrap(), b"012345new");
}

#[test]
fn a_removed_file_stays_readable() {
    let twin = Twin::new();
    let file = create(&twin, "/a");
    file.write_all_at(b"old", 0).unwrap();
    let map = file.map(3).unwrap();
    twin.remove(path("/a")).unwrap();
    assert_eq!(kind(twin.remove(path("/a"))), ErrorKind::NotFound);
    let other = create(&twin, "/b");
    other.write_all_at(b"new", 0).unwrap();
    let third = create(&twin, "/c");
    twin.rename(path("/c"), path("/b")).unwrap();
    assert_eq!(twin.files(), [PathBuf::from("/b")]);
    let mut buffer = [0; 3];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 3);
    assert_eq!(&buffer, b"old");
    assert_eq!(map.bytes(0..3).unwrap(), b"old");
    assert_eq!(other.read_at(&mut buffer, 0).unwrap(), 3);
    assert_eq!(&buffer, b"new");
    assert_eq!(third.size().unwrap(), 0);
    drop((twin, file));
    assert_eq!(map.bytes(0..3).unwrap(), b"old");
}

#[test]
fn a_lock_is_held_until_the_last_clone_of_its_handle_is_dropped() {
    let twin = Twin::new();
    let first = create(&twin, "/LOCK");
    let second = twin.open(path("/LOCK"), Access::Write).unwrap();
    first.try_lock().unwrap();
    first.try_lock().unwrap();
    let contended = fs2::lock_contended_error();
    assert_eq!(second.try_lock().unwrap_err().raw_os_error(), contended.raw_os_error());
    let clone = first.clone();
    drop(first);
    assert!(second.try_lock().is_err());
    // No crash leaves a lock behind.
    let image = twin.kill_image_now();
    image.open(path("/LOCK"), Access::Write).unwrap().try_lock().unwrap();
    drop(clone);
    second.try_lock().unwrap();
    // The lock is on the file, not on its name.
    twin.remove(path("/LOCK")).unwrap();
    create(&twin, "/LOCK").try_lock().unwrap();
    drop(second);
}

#[test]
fn the_trace_holds_every_change_and_every_sync() {
    let twin = Twin::new();
    twin.create_dir(path("/d")).unwrap();
    let file = create(&twin, "/d/a");
    file.try_lock().unwrap();
    file.allocate(9).unwrap();
    file.write_all_at(b"x", 1).unwrap();
    file.write_all_at(b"", 100).unwrap();
    file.size().unwrap();
    file.set_size(2).unwrap();
    file.sync().unwrap();
    twin.rename(path("/d/a"), path("/d/b")).unwrap();
    twin.sync_dir(path("/d")).unwrap();
    drop(create(&twin, "/d/b"));
    twin.remove(path("/d/b")).unwrap();
    let Op::Create { file, .. } = twin.trace()[1] else { panic!("{:?}", twin.trace()) };
    let (a, b, d) = (PathBuf::from("/d/a"), PathBuf::from("/d/b"), PathBuf::from("/d"));
    let expected = [
        Op::CreateDir { path: d.clone() },
        Op::Create { file, path: a.clone() },
        Op::Lock { file },
        Op::Allocate { file, size: 9 },
        Op::Write { file, offset: 1, bytes: b"x".to_vec() },
        Op::SetSize { file, size: 2 },
        Op::Sync { file },
        Op::Rename { from: a, to: b.clone() },
        Op::SyncDir { path: d },
        Op::Create { file, path: b.clone() },
        Op::Remove { path: b },
    ];
    assert_eq!(twin.trace(), expected);
    assert_eq!(twin.op_count(), expected.len());
    assert_eq!(twin.call_count(), expected.len() + 1);
}

#[test]
fn a_fault_strikes_the_intended_operation() {
    let twin = Twin::new();
    let file = create(&twin, "/a");
    twin.fail(Fault::new(FaultKind::Eio).after(1));
    file.write_all_at(b"one", 0).unwrap();
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
    file.sync().unwrap();

    twin.fail(Fault::new(FaultKind::Enospc).only(Call::Allocate).for_ever());
    file.write_all_at(b"two", 3).unwrap();
    assert_eq!(kind(file.allocate(100)), ErrorKind::StorageFull);
    assert_eq!(kind(file.allocate(50)), ErrorKind::StorageFull);
    twin.clear_fault();
    file.allocate(10).unwrap();

    // Reads are spared unless requested.
    twin.fail(Fault::new(FaultKind::Eio));
    assert_eq!(file.size().unwrap(), 10);
    assert!(twin.rename(path("/a"), path("/b")).is_err());
    twin.fail(Fault::new(FaultKind::Eio).reads_too().after(1));
    assert_eq!(file.size().unwrap(), 10);
    assert!(twin.is_dir(path("/none")).is_err_and(|error| error.kind() != ErrorKind::NotFound));
    twin.fail(Fault::new(FaultKind::Eio).only(Call::Map));
    twin.remove(path("/a")).unwrap();
    assert!(file.map(1).is_err());
    assert_eq!(twin.fault_count(), 6);
    assert_eq!(twin.op_count(), 6);
}

#[test]
fn a_failed_call_has_no_effect() {
    let twin = Twin::new();
    let file = create(&twin, "/a");
    twin.fail(Fault::new(FaultKind::Eio).for_ever());
    assert!(twin.open(path("/b"), Access::Create).is_err());
    assert!(twin.open(path("/a"), Access::Create).is_err());
    assert!(twin.create_dir(path("/d")).is_err());
    assert!(twin.rename(path("/a"), path("/b")).is_err());
    assert!(twin.remove(path("/a")).is_err());
    assert!(twin.sync_dir(path("/")).is_err());
    assert!(file.write_all_at(b"x", 0).is_err());
    assert!(file.set_size(5).is_err());
    assert!(file.allocate(5).is_err());
    assert!(file.try_lock().is_err());
    twin.clear_fault();
    assert_eq!(twin.op_count(), 1);
    assert_eq!(twin.files(), [PathBuf::from("/a")]);
    assert_eq!(file.size().unwrap(), 0);
    assert!(cut(&twin).files().is_empty());
    twin.open(path("/a"), Access::Write).unwrap().try_lock().unwrap();
}

#[test]
fn a_failed_sync_makes_nothing_durable() {
    let twin = Twin::new();
    let file = durable(&twin, "/a", b"old");
    file.write_all_at(b"new", 3).unwrap();
    twin.fail(Fault::new(FaultKind::Eio).only(Call::Sync));
    assert!(file.sync().is_err());
    assert_eq!(cut(&twin).contents(path("/a")).unwrap(), b"old");
    assert_eq!(twin.contents(path("/a")).unwrap(), b"oldnew");
}

#[test]
fn a_short_write_leaves_half_of_its_bytes() {
    let twin = Twin::new();
    let file = create(&twin, "/a");
    twin.fail(Fault::new(FaultKind::ShortWrite).only(Call::Write));
    assert_eq!(file.write_all_at(b"abcdef", 0).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(twin.contents(path("/a")).unwrap(), b"abc");
    assert_eq!(twin.kill_image_now().contents(path("/a")).unwrap(), b"abc");
    twin.fail(Fault::new(FaultKind::ShortWrite));
    assert!(file.write_all_at(b"x", 3).is_err());
    assert_eq!(twin.op_count(), 2);
}

#[test]
fn an_interrupted_call_is_repeated_where_std_repeats_it() {
    let twin = Twin::new();
    let file = create(&twin, "/a");
    twin.fail(Fault::new(FaultKind::Interrupted).for_ever());
    file.write_all_at(b"abc", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(twin.fault_count(), 2);
    assert_eq!(kind(file.try_lock()), ErrorKind::Interrupted);
    twin.clear_fault();
    twin.fail(Fault::new(FaultKind::Interrupted).only(Call::ReadAt));
    assert_eq!(kind(file.read_at(&mut [0; 3], 0)), ErrorKind::Interrupted);
    twin.fail(Fault::new(FaultKind::Interrupted).only(Call::ReadAt));
    let fs = Fs::Twin(Arc::clone(&twin));
    let mut buffer = [0; 3];
    let file = fs.open(path("/a"), Access::Read).unwrap();
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 3);
    assert_eq!(&buffer, b"abc");
}

#[test]
fn space_runs_out_and_comes_back() {
    let twin = Twin::new();
    let file = create(&twin, "/a");
    twin.set_space(10);
    file.allocate(8).unwrap();
    assert_eq!(kind(file.allocate(11)), ErrorKind::StorageFull);
    assert_eq!(kind(file.write_all_at(b"xxxx", 7)), ErrorKind::StorageFull);
    file.write_all_at(b"12345678", 0).unwrap();
    let other = create(&twin, "/b");
    other.set_size(1000).unwrap();
    assert_eq!(kind(other.write_all_at(b"123", 0)), ErrorKind::StorageFull);
    other.write_all_at(b"12", 0).unwrap();
    assert_eq!(kind(twin.open(path("/c"), Access::Create)), ErrorKind::StorageFull);
    assert_eq!(kind(twin.create_dir(path("/d"))), ErrorKind::StorageFull);
    twin.open(path("/b"), Access::Create).unwrap();
    file.set_size(4).unwrap();
    create(&twin, "/c").allocate(6).unwrap();
    twin.remove(path("/c")).unwrap();
    other.allocate(6).unwrap();
}

#[test]
fn a_killed_process_loses_nothing() {
    let twin = Twin::new();
    twin.create_dir(path("/d")).unwrap();
    let file = create(&twin, "/d/a");
    file.write_all_at(b"one", 0).unwrap();
    file.write_all_at(b"two", 3).unwrap();
    twin.rename(path("/d/a"), path("/d/b")).unwrap();
    assert!(twin.kill_image(0).files().is_empty());
    assert_eq!(twin.kill_image(2).contents(path("/d/a")).unwrap(), b"");
    assert_eq!(twin.kill_image(3).contents(path("/d/a")).unwrap(), b"one");
    assert_eq!(twin.kill_image(4).contents(path("/d/a")).unwrap(), b"onetwo");
    let image = twin.kill_image_now();
    assert_eq!(image.files(), [PathBuf::from("/d/b")]);
    assert_eq!(image.contents(path("/d/b")), twin.fork().contents(path("/d/b")));
    // The image is an independent disk.
    image.open(path("/d/b"), Access::Write).unwrap().write_all_at(b"x", 0).unwrap();
    assert_eq!(twin.contents(path("/d/b")).unwrap(), b"onetwo");
    assert_eq!(image.op_count(), 1);
}

#[test]
fn a_power_cut_loses_what_was_not_synced() {
    let twin = Twin::new();
    let file = durable(&twin, "/a", b"old");
    file.write_all_at(b"new", 3).unwrap();
    let unsynced = twin.op_count();
    assert_eq!(cut(&twin).contents(path("/a")).unwrap(), b"old");
    assert_eq!(twin.power_image(unsynced, |_| true).contents(path("/a")).unwrap(), b"oldnew");
    file.sync().unwrap();
    assert_eq!(cut(&twin).contents(path("/a")).unwrap(), b"oldnew");
    // The sync came after the requested moment.
    let before = twin.power_image(unsynced, |_| false);
    assert_eq!(before.contents(path("/a")).unwrap(), b"old");
    // A sync of the directory does not cover the content.
    file.set_size(1).unwrap();
    twin.sync_dir(path("/")).unwrap();
    assert_eq!(cut(&twin).contents(path("/a")).unwrap(), b"oldnew");
}

#[test]
fn a_write_that_survives_an_earlier_one_leaves_zeros_in_the_gap() {
    let twin = Twin::new();
    let file = durable(&twin, "/a", b"x");
    file.write_all_at(b"yy", 1).unwrap();
    file.write_all_at(b"zz", 3).unwrap();
    let keeping = |wanted: &[u8]| {
        let image = twin.power_image(twin.op_count(), |thing| match thing {
            Unsynced::Data(Op::Write { bytes, .. }) => bytes == wanted,
            _ => false,
        });
        image.contents(path("/a")).unwrap()
    };
    assert_eq!(keeping(b"zz"), b"x\0\0zz");
    assert_eq!(keeping(b"yy"), b"xyy");

    let file = create(&twin, "/b");
    file.allocate(4).unwrap();
    file.sync().unwrap();
    twin.sync_dir(path("/")).unwrap();
    file.write_all_at(b"data", 0).unwrap();
    assert_eq!(cut(&twin).contents(path("/b")).unwrap(), b"\0\0\0\0");
}

#[test]
fn a_synced_file_without_a_synced_name_is_lost() {
    let twin = Twin::new();
    let file = create(&twin, "/a");
    file.write_all_at(b"abc", 0).unwrap();
    file.sync().unwrap();
    assert!(cut(&twin).files().is_empty());
    let mut asked = Vec::new();
    let image = twin.power_image(twin.op_count(), |thing| {
        asked.push(format!("{thing:?}"));
        true
    });
    assert_eq!(asked.len(), 1);
    assert!(asked[0].starts_with("Name(Create"), "{asked:?}");
    assert_eq!(image.contents(path("/a")).unwrap(), b"abc");
    twin.sync_dir(path("/")).unwrap();
    assert_eq!(cut(&twin).contents(path("/a")).unwrap(), b"abc");
}

#[test]
fn a_link_is_equivalent_to_the_first_name() {
    let twin = Twin::new();
    let fs = Fs::Twin(Arc::clone(&twin));
    twin.create_dir(path("/d")).unwrap();
    twin.sync_dir(path("/")).unwrap();
    let file = durable(&twin, "/a", b"abc");
    assert!(fs.link(path("/a"), &fs, path("/d/b")).unwrap());
    assert_eq!(kind(twin.link(path("/none"), path("/c"))), ErrorKind::NotFound);
    assert_eq!(kind(twin.link(path("/a"), path("/none/c"))), ErrorKind::NotFound);
    assert_eq!(kind(twin.link(path("/a"), path("/d/b"))), ErrorKind::AlreadyExists);
    file.write_all_at(b"d", 3).unwrap();
    assert_eq!(twin.contents(path("/d/b")).unwrap(), b"abcd");
    // A power cut loses the name until its directory is synced; the other name stays.
    assert_eq!(cut(&twin).files(), [PathBuf::from("/a")]);
    twin.sync_dir(path("/d")).unwrap();
    assert_eq!(cut(&twin).contents(path("/d/b")).unwrap(), b"abc");
    twin.remove(path("/a")).unwrap();
    twin.sync_dir(path("/")).unwrap();
    assert_eq!(cut(&twin).files(), [PathBuf::from("/d/b")]);
    assert_eq!(twin.kill_image_now().contents(path("/d/b")).unwrap(), b"abcd");
}

#[test]
fn a_link_takes_no_space_and_may_fail_or_be_unsupported() {
    let twin = Twin::new();
    let fs = Fs::Twin(Arc::clone(&twin));
    durable(&twin, "/a", b"abcd");
    twin.set_space(6);
    assert!(fs.link(path("/a"), &fs, path("/b")).unwrap());
    twin.open(path("/b"), Access::Write).unwrap().write_all_at(b"ef", 4).unwrap();
    assert!(fs.link(path("/a"), &fs, path("/c")).unwrap_err().is_no_space());
    twin.set_space(u64::MAX);
    twin.fail(Fault::new(FaultKind::Eio).only(Call::Link));
    assert!(fs.link(path("/a"), &fs, path("/c")).is_err());
    twin.refuse_links();
    assert!(!fs.link(path("/a"), &fs, path("/c")).unwrap());
    assert_eq!(twin.files(), [PathBuf::from("/a"), PathBuf::from("/b")]);
}

#[test]
fn an_empty_directory_can_be_removed() {
    let twin = Twin::new();
    twin.create_dir(path("/d")).unwrap();
    twin.sync_dir(path("/")).unwrap();
    create(&twin, "/d/a");
    assert_eq!(kind(twin.remove_dir(path("/d"))), ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(twin.remove_dir(path("/d/a"))), ErrorKind::NotADirectory);
    twin.remove(path("/d/a")).unwrap();
    twin.remove_dir(path("/d")).unwrap();
    assert_eq!(kind(twin.is_dir(path("/d"))), ErrorKind::NotFound);
    assert!(cut(&twin).is_dir(path("/d")).unwrap());
    twin.sync_dir(path("/")).unwrap();
    assert_eq!(kind(cut(&twin).is_dir(path("/d"))), ErrorKind::NotFound);
}

#[test]
fn an_unsynced_rename_leaves_the_old_names() {
    let twin = Twin::new();
    durable(&twin, "/a", b"old");
    durable(&twin, "/a.new", b"new");
    twin.rename(path("/a.new"), path("/a")).unwrap();
    let image = cut(&twin);
    assert_eq!(image.contents(path("/a")).unwrap(), b"old");
    assert_eq!(image.contents(path("/a.new")).unwrap(), b"new");
    twin.sync_dir(path("/")).unwrap();
    let image = cut(&twin);
    assert_eq!(image.contents(path("/a")).unwrap(), b"new");
    assert_eq!(image.files(), [PathBuf::from("/a")]);
}

#[test]
fn a_rename_survives_a_name_that_never_reached_the_disk() {
    let twin = Twin::new();
    let file = create(&twin, "/a.new");
    file.write_all_at(b"new", 0).unwrap();
    file.sync().unwrap();
    twin.rename(path("/a.new"), path("/a")).unwrap();
    let image = twin
        .power_image(twin.op_count(), |thing| matches!(thing, Unsynced::Name(Op::Rename { .. })));
    assert_eq!(image.files(), [PathBuf::from("/a")]);
    assert_eq!(image.contents(path("/a")).unwrap(), b"new");
}

#[test]
fn a_rename_between_directories_needs_both_synced() {
    let twin = Twin::new();
    twin.create_dir(path("/d")).unwrap();
    durable(&twin, "/a", b"abc");
    twin.rename(path("/a"), path("/d/a")).unwrap();
    twin.sync_dir(path("/d")).unwrap();
    assert_eq!(cut(&twin).files(), [PathBuf::from("/a")]);
    twin.sync_dir(path("/")).unwrap();
    assert_eq!(cut(&twin).files(), [PathBuf::from("/d/a")]);
}

#[test]
fn a_removed_file_may_be_back_after_a_power_cut() {
    let twin = Twin::new();
    durable(&twin, "/a", b"abc");
    twin.remove(path("/a")).unwrap();
    assert_eq!(cut(&twin).contents(path("/a")).unwrap(), b"abc");
    twin.sync_dir(path("/")).unwrap();
    assert!(cut(&twin).files().is_empty());
}

#[test]
fn the_files_of_a_lost_directory_are_lost_too() {
    let twin = Twin::new();
    twin.create_dir(path("/d")).unwrap();
    durable(&twin, "/d/a", b"abc");
    let image = cut(&twin);
    assert!(image.files().is_empty());
    assert_eq!(kind(image.is_dir(path("/d"))), ErrorKind::NotFound);
    assert_eq!(kind(image.open(path("/d/a"), Access::Read)), ErrorKind::NotFound);
    twin.sync_dir(path("/")).unwrap();
    assert_eq!(cut(&twin).contents(path("/d/a")).unwrap(), b"abc");
}

#[test]
fn emptying_a_file_changes_its_content() {
    let twin = Twin::new();
    durable(&twin, "/a", b"abc");
    let file = create(&twin, "/a");
    twin.sync_dir(path("/")).unwrap();
    assert_eq!(cut(&twin).contents(path("/a")).unwrap(), b"abc");
    file.sync().unwrap();
    assert_eq!(cut(&twin).contents(path("/a")).unwrap(), b"");
}

#[test]
fn an_image_is_the_start_of_another_run() {
    let twin = Twin::new();
    durable(&twin, "/a", b"one").write_all_at(b"lost", 3).unwrap();
    let second = cut(&twin);
    assert_eq!(second.op_count(), 0);
    // The initial state of an image is durable, and its files are distinct from new ones.
    assert_eq!(cut(&second).contents(path("/a")).unwrap(), b"one");
    let file = second.open(path("/a"), Access::Write).unwrap();
    file.write_all_at(b"two", 3).unwrap();
    durable(&second, "/b", b"bbb");
    let third = cut(&second);
    assert_eq!(third.contents(path("/a")).unwrap(), b"one");
    assert_eq!(third.contents(path("/b")).unwrap(), b"bbb");
    assert_eq!(second.kill_image(1).contents(path("/a")).unwrap(), b"onetwo");
    assert!(second.kill_image(1).contents(path("/b")).is_none());
    assert_eq!(second.fork().kill_image(0).contents(path("/a")).unwrap(), b"onetwo");
}

#[test]
fn files_that_a_test_puts_on_the_disk_are_durable() {
    let twin = Twin::new();
    let file = durable(&twin, "/d.log", b"abc");
    twin.put_file(path("/d.log"), b"aXc".to_vec());
    twin.put_file(path("/e/f"), b"ef".to_vec());
    assert_eq!(twin.op_count(), 4);
    for image in [cut(&twin), twin.kill_image_now(), twin.fork()] {
        assert_eq!(image.contents(path("/d.log")).unwrap(), b"aXc");
        assert_eq!(image.contents(path("/e/f")).unwrap(), b"ef");
        assert!(image.is_dir(path("/e")).unwrap());
    }
    assert_eq!(twin.kill_image(3).contents(path("/d.log")).unwrap(), b"abc");
    let mut buffer = [0; 3];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 3);
    assert_eq!(&buffer, b"abc");
    twin.delete_file(path("/d.log"));
    assert_eq!(cut(&twin).files(), [PathBuf::from("/e/f")]);
    assert_eq!(create(&twin, "/g").size().unwrap(), 0);
}

#[test]
fn replacing_a_file_is_atomic_wherever_the_power_fails() {
    let twin = Twin::new();
    let fs = Fs::Twin(Arc::clone(&twin));
    durable(&twin, "/M", b"old");
    fs.replace(path("/M"), path("/M.new"), b"new").unwrap();
    for ops in 4..=twin.op_count() {
        for choice in 0..16_u32 {
            let mut asked = 0;
            let image = twin.power_image(ops, |_| {
                asked += 1;
                choice >> (asked - 1) & 1 == 1
            });
            let bytes = image.contents(path("/M")).unwrap();
            assert!(bytes == b"old" || bytes == b"new", "{ops} {choice:b} {bytes:?}");
        }
    }
    assert_eq!(cut(&twin).contents(path("/M")).unwrap(), b"new");
}
