//! Interrupted merges: by a crash at every operation, by every failing call, and by a full disk of
//! every size.
//!
//! - [`prepared`] is a disk with a store that is worth merging: overwritten keys, tombstones above
//!   unmerged puts, expired entries and batches. Every test starts from a copy.
//! - A merge never takes all segments, so that some tombstones are kept and some dropped.

use super::basics::*;
use crate::options::{MergeOptions, WriteOptions};
use crate::store::tests::story::{Random, long};
use crate::store::tests::*;
use crate::testing::twin::{Call, Fault, FaultKind, Op};

const KEYS: [&str; 16] =
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", ""];

/// A disk with a closed store of many small segments, and the store's content.
fn prepared() -> (Lab, Pairs) {
    let lab = Lab::new().seeded(3);
    let db = lab.open();
    let mut pairs = Pairs::new();
    let mut random = Random(11);
    let ttl = WriteOptions::new().ttl(Duration::from_secs(1));
    for number in 0..90_usize {
        let key = KEYS[usize::try_from(random.below(16)).unwrap()];
        let value = format!("{number} {}", "x".repeat(40 + number % 9 * 15));
        match number % 7 {
            3 => {
                db.delete(key).unwrap();
                pairs.remove(key.as_bytes());
            }
            5 if number < 80 => {
                db.put_opt(key, &value, ttl).unwrap();
                pairs.remove(key.as_bytes());
            }
            6 => {
                db.write(Batch::new().put(key, &value).delete("j").put("i", &value)).unwrap();
                pairs.remove(b"j".as_slice());
                pairs.insert(key.into(), value.clone().into());
                pairs.insert(b"i".to_vec(), value.into());
            }
            _ => {
                db.put(key, &value).unwrap();
                pairs.insert(key.into(), value.into());
            }
        }
    }
    lab.hands.advance(Duration::from_secs(2));
    assert_eq!(snapshot(&db), pairs);
    db.close().unwrap();
    (lab, pairs)
}

/// Returns most of the segments of a prepared store, but not the oldest one.
fn inputs(db: &Bitcask) -> Vec<SegmentId> {
    let all = sealed(db).into_iter().enumerate();
    all.filter(|(at, _)| *at > 0 && at % 4 != 2).map(|(_, id)| id).collect()
}

fn merge_inputs(db: &Bitcask) -> Result<crate::MergeReport> {
    db.merge_opt(MergeOptions::new().segments(inputs(db).iter().map(|id| id.0)))
}

fn listed_on(lab: &Lab) -> Vec<SegmentId> {
    let path = Dir::new(DIR.into()).manifest();
    let manifest = Manifest::decode(&lab.twin.contents(&path).unwrap(), &path).unwrap();
    manifest.sealed.iter().map(|sealed| sealed.id).collect()
}

/// Opens the state that a crash has left, read-only and then for writing. Both must have the same
/// content. Returns the writable store and its content.
fn reopened(lab: &Lab, when: &str) -> (Bitcask, Pairs) {
    let reader = lab.open_read_only();
    let seen = snapshot(&reader);
    drop(reader);
    assert_eq!(lab.twin.op_count(), 0, "{when}: a reader changed the disk");
    let db = lab.try_open().unwrap_or_else(|error| panic!("{when}: {error}"));
    assert_eq!(snapshot(&db), seen, "{when}: read-only and writable openings differ");
    check_figures(&db);
    (db, seen)
}

/// Checks that the disk holds exactly the segments of a store, and that every removed file was
/// reported.
fn check_files(lab: &Lab, before: &[PathBuf], db: &Bitcask, when: &str) {
    let listed = sealed(db);
    let files = lab.logs().into_iter().chain(lab.hints());
    let unlisted: Vec<_> = files.filter(|(id, _)| !listed.contains(id)).collect();
    assert!(unlisted.is_empty(), "{when}: {unlisted:?}");
    let leftovers = &db.recovery().leftovers;
    let gone = |path: &&PathBuf| lab.twin.contents(path).is_none();
    for path in before.iter().filter(gone) {
        // Cuts and empty segments are reported elsewhere.
        let is_told = leftovers.contains(path) || path.extension().is_some_and(|ext| ext == "log");
        assert!(is_told, "{when}: {} is gone, of {leftovers:?}", path.display());
    }
    assert!(leftovers.iter().all(|path| gone(&path)), "{when}: {leftovers:?}");
}

/// Merges everything and reopens; the content must stay the same.
fn check_merged(lab: &Lab, db: Bitcask, pairs: &Pairs, when: &str) {
    let report = db.merge_opt(MergeOptions::new().force(true));
    let report = report.unwrap_or_else(|error| panic!("{when}: {error}"));
    assert!(report.segments_out <= report.segments_in && report.tombstones_kept == 0, "{when}");
    assert_eq!(snapshot(&db), *pairs, "{when}: merged");
    check_figures(&db);
    let db = lab.reopen(db);
    // A file that could not be removed may remain.
    let report = RecoveryReport { leftovers: Vec::new(), ..db.recovery().clone() };
    assert!(report.is_clean(), "{when}: {report:?}");
    assert_eq!(snapshot(&db), *pairs, "{when}: merged and opened again");
}

/// A merge with writes in between, on a copy of a prepared disk.
struct Recorded {
    lab: Lab,
    /// The store's content after each write; the first is from before all writes.
    states: Vec<Pairs>,
    /// By number of operations since opening: the indexes of the durable and the acknowledged
    /// state.
    floors: BTreeMap<usize, (usize, usize)>,
    /// Every list of segments that the manifest had.
    lists: Vec<Vec<SegmentId>>,
}

impl Recorded {
    fn new(prepared: &Lab, pairs: Pairs) -> Self {
        let lab = prepared.on(prepared.twin.fork());
        let db = lab.open();
        let mut run =
            Self { lab, states: vec![pairs], floors: BTreeMap::new(), lists: vec![sealed(&db)] };
        let mut merge = begin(&db, &inputs(&db));
        for number in 0.. {
            let done = merge.step(&*db.inner).unwrap().is_none();
            run.note(&db);
            if done {
                break;
            }
            let mut pairs = run.states.last().unwrap().clone();
            let key = KEYS[number % 5];
            if number % 3 == 0 {
                db.delete(key).unwrap();
                pairs.remove(key.as_bytes());
            } else {
                let value = format!("while merging {number}");
                db.put(key, &value).unwrap();
                pairs.insert(key.into(), value.into());
            }
            run.states.push(pairs);
            run.note(&db);
        }
        kill(db);
        run
    }

    fn note(&mut self, db: &Bitcask) {
        let acknowledged = self.states.len() - 1;
        let is_durable =
            db.inner.log().unwrap().durable() >= db.inner.writer().unwrap().log.lock().end();
        let before = self.floors.last_key_value().map_or(0, |(_, (durable, _))| *durable);
        let durable = if is_durable { acknowledged } else { before };
        self.floors.insert(self.lab.twin.op_count(), (durable, acknowledged));
        self.lists.push(sealed(db));
    }

    /// Returns the oldest states allowed after a power cut and after a kill, following this many
    /// operations.
    fn floor(&self, ops: usize) -> (usize, usize) {
        self.floors.range(..=ops).next_back().map_or((0, 0), |(_, floor)| *floor)
    }
}

/// A crash at any moment of a merge leaves the store as it was before or after some listing. No
/// deleted key comes back, and no other key is lost.
#[test]
fn a_merge_may_be_interrupted_at_any_operation() {
    let (prepared, pairs) = prepared();
    let run = Recorded::new(&prepared, pairs);
    let ops = run.lab.twin.op_count();
    let mut lists = run.lists.clone();
    lists.dedup();
    assert!(lists.len() > 2 && ops > 100, "{ops} operations, {lists:?}");
    for ops in 0..=ops {
        let mut random = Random(ops as u64);
        let mut alternate = ops % 2 == 0;
        let twin = &run.lab.twin;
        let mut alternating = || {
            alternate = !alternate;
            alternate
        };
        let images = [
            ("killed", twin.kill_image(ops)),
            ("nothing unsynced", twin.power_image(ops, |_| false)),
            ("alternating", twin.power_image(ops, |_| alternating())),
            ("a half", twin.power_image(ops, |_| random.below(2) == 0)),
            ("most", twin.power_image(ops, |_| random.below(8) > 0)),
        ];
        let (durable, acknowledged) = run.floor(ops);
        for (number, (kind, image)) in images.into_iter().enumerate() {
            let when = format!("operation {ops}, {kind}");
            let lab = run.lab.on(image);
            assert!(lists.contains(&listed_on(&lab)), "{when}: {:?}", listed_on(&lab));
            let before = lab.twin.files();
            let (db, found) = reopened(&lab, &when);
            let first = if number == 0 { acknowledged } else { durable };
            let allowed = &run.states[first..run.states.len().min(acknowledged + 2)];
            assert!(allowed.contains(&found), "{when}: {found:?} is none of {allowed:#?}");
            check_files(&lab, &before, &db, &when);
            if (ops + number).is_multiple_of(16) || long() {
                check_merged(&lab, db, &found, &when);
            }
        }
    }
}

/// Checks that a failed merge on a failing disk returns an expected error.
fn check_failure(error: &Error, when: &str) {
    let path = match error {
        Error::Io { path, .. } | Error::NoSpace { path } | Error::Corrupt { path, .. } => path,
        Error::Poisoned { cause } => return check_failure(cause, when),
        _ => panic!("{when}: {error}"),
    };
    assert!(path.starts_with(DIR), "{when}: {error}");
}

/// Fails each call of a merge. With `reads_too`, also fails the calls that only read.
fn fail_each(kind: FaultKind, for_ever: bool, reads_too: bool) {
    let (prepared, pairs) = prepared();
    let healthy = prepared.on(prepared.twin.fork());
    let db = healthy.open();
    db.len().unwrap();
    let (first_op, first_call) = (healthy.twin.op_count(), healthy.twin.call_count());
    merge_inputs(&db).unwrap();
    let ops = healthy.twin.op_count() - first_op;
    let calls = if reads_too { healthy.twin.call_count() - first_call } else { ops };
    let trace = healthy.twin.trace();
    assert!(ops > 40 && (calls > ops || !reads_too), "{ops} operations, {calls} calls");
    // A permanent fault also hits the later calls.
    let step = if for_ever && !long() { 3 } else { 1 };
    for at in (0..calls).step_by(step) {
        let when = format!("{kind:?} at call {at}, permanent: {for_ever}");
        let lab = prepared.on(prepared.twin.fork());
        let db = lab.open();
        db.len().unwrap();
        let fault = Fault::new(kind).after(at);
        let fault = if reads_too { fault.reads_too() } else { fault };
        lab.twin.fail(if for_ever { fault.for_ever() } else { fault });
        let result = merge_inputs(&db);
        assert!(lab.twin.fault_count() > 0, "{when}");
        let poisoned = db.inner.log().unwrap().check().is_err();
        if let Err(error) = &result {
            check_failure(error, &when);
        }
        if !reads_too {
            let is_sync = matches!(trace[first_op + at], Op::Sync { .. } | Op::SyncDir { .. });
            assert!(!is_sync || kind == FaultKind::Interrupted || poisoned, "{when}");
            assert!(is_sync || for_ever || !poisoned, "{when}");
        }
        // The merge returns the first error; every later write reports the poison.
        assert!(!poisoned || result.is_err(), "{when}");
        assert_eq!(snapshot(&db), pairs, "{when}");
        check_figures(&db);
        let killed = lab.killed();
        // In that case, the written output is read entry by entry.
        killed.delete_hints();
        for image in [killed, lab.powered_off(|_| false)] {
            assert_eq!(reopened(&image, &when).1, pairs, "{when}");
        }
        if kind == FaultKind::Enospc && !poisoned {
            let put = db.put("another", "value");
            assert!(
                put.is_ok() || put.is_err_and(|error| for_ever && error.is_no_space()),
                "{when}"
            );
        }
        lab.twin.clear_fault();
        let mut pairs = pairs.clone();
        if poisoned {
            assert!(db.merge().unwrap_err().is_poisoned(), "{when}");
            assert!(db.put("another", "value").unwrap_err().is_poisoned(), "{when}");
            kill(db);
        } else if at % 2 == 0 {
            db.put("another", "value").unwrap();
            pairs.insert(b"another".to_vec(), b"value".to_vec());
            check_merged(&lab, db, &pairs, &when);
            continue;
        } else {
            drop(db);
        }
        let lab = lab.on(lab.twin.fork());
        let (db, mut found) = reopened(&lab, &when);
        found.remove(b"another".as_slice());
        assert_eq!(found, pairs, "{when}");
        drop(db);
    }
}

#[test]
fn a_call_of_a_merge_fails_once() {
    fail_each(FaultKind::Eio, false, true);
}

#[test]
fn the_disk_fails_from_one_call_of_a_merge_on() {
    fail_each(FaultKind::Eio, true, true);
}

#[test]
fn a_write_of_a_merge_is_cut_short() {
    fail_each(FaultKind::ShortWrite, false, false);
}

#[test]
fn a_call_of_a_merge_finds_no_space() {
    fail_each(FaultKind::Enospc, false, false);
    fail_each(FaultKind::Enospc, true, false);
}

/// An input that cannot be removed is no longer part of the store, and is removed at the next open.
#[test]
fn an_input_that_cannot_be_removed_is_a_leftover() {
    let (lab, pairs) = prepared();
    let db = lab.open();
    let inputs = inputs(&db);
    lab.twin.fail(Fault::new(FaultKind::Eio).only(Call::Remove).for_ever());
    assert_eq!(merge_inputs(&db).unwrap().segments_in, inputs.len() as u64);
    lab.twin.clear_fault();
    let left =
        |lab: &Lab| inputs.iter().filter(|id| lab.logs().iter().any(|(log, _)| log == *id)).count();
    assert_eq!(left(&lab), inputs.len());
    let db = lab.reopen(db);
    assert_eq!(left(&lab), 0);
    assert_eq!(db.recovery().leftovers.len(), 2 * inputs.len());
    assert_eq!(snapshot(&db), pairs);
}

/// Copies that could not be listed are listed when the store is closed, if that works by then, or
/// before the next merge.
#[test]
fn unlisted_copies_are_listed_later() {
    let (prepared, pairs) = prepared();
    let mut pending = 0;
    for exchanges in 0..12 {
        let lab = prepared.on(prepared.twin.fork());
        let db = lab.open();
        db.len().unwrap();
        let fault = Fault::new(FaultKind::Enospc).only(Call::Exchange).after(exchanges);
        lab.twin.fail(fault.for_ever());
        let result = merge_inputs(&db);
        lab.twin.clear_fault();
        if db.inner.writer().unwrap().merging.turn().unwrap().pending.is_none() {
            continue;
        }
        pending += 1;
        assert!(result.unwrap_err().is_no_space());
        let before = sealed(&db);
        if pending == 1 {
            db.merge().unwrap();
            assert_ne!(sealed(&db), before);
        }
        let db = lab.reopen(db);
        assert!(found_in_order(&db), "{:?}", db.recovery());
        assert_ne!(sealed(&db), before);
        assert_eq!(snapshot(&db), pairs);
    }
    assert!(pending > 1, "{pending}");
}

/// On a disk too small for a merge, at every size, nothing is lost, and reads and writes work as
/// far as there is space. Once there is more, the merge succeeds.
#[test]
fn a_merge_meets_a_full_disk_at_every_size() {
    let (prepared, pairs) = prepared();
    let used = u64::MAX - prepared.twin.available_space();
    let (mut refused, mut made) = (0, 0);
    for room in (0..used + 8000).step_by(if long() { 8 } else { 200 }) {
        let when = format!("{room} bytes of room");
        let lab = prepared.on(prepared.twin.fork());
        let db = lab.open();
        db.len().unwrap();
        lab.twin.set_space(room);
        let result = merge_inputs(&db);
        match &result {
            Ok(_) => made += 1,
            Err(error) => {
                assert!(error.is_no_space(), "{when}: {error}");
                check_failure(error, &when);
                refused += 1;
            }
        }
        assert_eq!(snapshot(&db), pairs, "{when}");
        check_figures(&db);
        for image in [lab.killed(), lab.powered_off(|_| false)] {
            assert_eq!(reopened(&image, &when).1, pairs, "{when}");
        }
        let mut pairs = pairs.clone();
        match db.put("another", "value") {
            Ok(()) => drop(pairs.insert(b"another".to_vec(), b"value".to_vec())),
            Err(error) => assert!(error.is_no_space(), "{when}: {error}"),
        }
        // The merge is retried without more space. The store is then closed either without or with
        // more space.
        let again = merge_inputs(&db);
        assert!(again.is_ok() || again.is_err_and(|error| error.is_no_space()), "{when}");
        if room % 16 == 0 {
            let closed = db.close();
            assert!(closed.is_ok() || closed.is_err_and(|error| error.is_no_space()), "{when}");
            lab.twin.set_space(u64::MAX);
            let lab = lab.on(lab.twin.fork());
            let (db, found) = reopened(&lab, &when);
            assert_eq!(found, pairs, "{when}");
            drop(db);
        } else {
            lab.twin.set_space(u64::MAX);
            db.put("one more", "value").unwrap();
            pairs.insert(b"one more".to_vec(), b"value".to_vec());
            check_merged(&lab, db, &pairs, &when);
        }
    }
    assert!(refused > 10 && made > 10, "{refused} refused, {made} made");
}
