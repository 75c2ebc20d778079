//! Recovery interrupted at every step and run again: it ends in the same state, and no unreadable
//! byte is lost on the way.

use crate::store::tests::story::*;
use crate::store::tests::*;
use crate::testing::twin::{Fault, FaultKind};

/// A disk that needs recovery, and its content.
struct Torn {
    name: &'static str,
    lab: Lab,
    pairs: Pairs,
    /// The unreadable bytes, by place.
    unread: BTreeMap<Place, Vec<u8>>,
    leftovers: Vec<PathBuf>,
}

fn dir() -> Dir {
    Dir::new(DIR.into())
}

fn change(twin: &Twin, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = twin.contents(path).unwrap();
    change(&mut bytes);
    twin.put_file(path, bytes);
}

impl Torn {
    /// Runs an uninterrupted recovery to learn the expected result of the others.
    fn new(name: &'static str, lab: Lab, pairs: &Pairs) -> Self {
        let once = lab.on(lab.twin.fork());
        let db = once.open();
        let report = db.recovery().clone();
        assert_eq!(snapshot(&db), *pairs, "{name}");
        kill(db);
        let unread = quarantine(&once.twin);
        assert_eq!(unread.len(), report.cuts.len(), "{name}");
        Self { name, lab, pairs: pairs.clone(), unread, leftovers: report.leftovers }
    }

    fn fresh(&self) -> Lab {
        self.lab.on(self.lab.twin.fork())
    }

    /// Checks that every unreadable byte is in its place or in quarantine.
    fn check_kept(&self, twin: &Twin, when: &str) {
        let aside = quarantine(twin);
        for (place, bytes) in &self.unread {
            let log = twin.contents(&dir().log(place.segment)).unwrap_or_default();
            let offset = usize::try_from(place.offset).unwrap();
            let in_log = log.get(offset..offset + bytes.len()) == Some(bytes);
            let kept = in_log || aside.get(place) == Some(bytes);
            assert!(kept, "{}, {when}: the bytes after {place:?} are lost", self.name);
        }
    }

    /// Opens what an interrupted recovery left. The result must be the same as without the
    /// interruption.
    fn check_run_again(&self, lab: &Lab, when: &str) {
        let name = self.name;
        self.check_kept(&lab.twin, when);
        let db = lab.try_open().unwrap_or_else(|error| panic!("{name}, {when}: {error}"));
        assert_eq!(snapshot(&db), self.pairs, "{name}, {when}");
        kill(db);
        let aside = quarantine(&lab.twin);
        for (place, bytes) in &self.unread {
            assert_eq!(aside.get(place), Some(bytes), "{name}, {when}: behind {place:?}");
        }
        assert_eq!(aside.len(), self.unread.len(), "{name}, {when}");
        for path in &self.leftovers {
            assert_eq!(lab.twin.contents(path), None, "{name}, {when}: {}", path.display());
        }
        let db = lab.open();
        assert!(found_in_order(&db), "{name}, {when}: {:?}", db.recovery());
        assert_eq!(snapshot(&db), self.pairs, "{name}, {when}: the third time");
        kill(db);
    }
}

/// Adds files to a store that a crash might have left there.
fn litter(lab: &Lab) {
    let twin = &lab.twin;
    let oldest = lab.logs()[0].1.clone();
    let bytes = twin.contents(&oldest).unwrap();
    twin.put_file(&dir().hint(SegmentId(77)), b"an orphan".to_vec());
    twin.put_file(&Dir::temporary(&dir().manifest()), b"half a manifest".to_vec());
    twin.put_file(&Dir::temporary(&dir().log(SegmentId(5))), bytes[..70].to_vec());
    twin.put_file(&Dir::temporary(&dir().hint(SegmentId(1))), vec![]);
}

/// Several segments, sealed or not, with everything synced except the end.
fn several(lab: Lab, sealed: bool) -> Told {
    let options = lab.options.clone().segment_entries(2);
    let mut story = Story::begin(lab.with(options));
    story.put("a", "1");
    story.put("b", "2");
    story.batch(&[("c", "3"), ("d", "4")], &[]);
    if sealed {
        story.put("a", "5");
        story.seal();
    }
    story.put("e", "6");
    story.delete("b");
    story.put("f", "7");
    story.batch(&[("g", "8")], &["c"]);
    story.put("h", "9");
    story.killed()
}

/// A disk whose first unsealed segments are intact, followed by a torn one and further ones.
fn torn_in(name: &'static str, told: &Told, segment: u32, at: u64) -> Torn {
    let lab = told.lab.on(told.disk());
    let path = dir().log(SegmentId(segment));
    change(&lab.twin, &path, |bytes| {
        let end = content_end(bytes);
        Random(at).garbage(&mut bytes[usize::try_from(at).unwrap()..end]);
    });
    let step = told.before(Place::new(SegmentId(segment), at), SegmentId(1));
    Torn::new(name, lab, &step.pairs)
}

fn all_torn() -> Vec<Torn> {
    let one = {
        let mut story = Story::begin(Lab::new());
        story.put("a", "1");
        story.put("b", "2");
        story.killed()
    };
    let several_open = several(Lab::new(), false);
    let some_sealed = several(Lab::weak(), true);
    let last = some_sealed.lab.logs().last().unwrap().0.0;
    let mut torn = vec![
        torn_in("the only segment", &one, 1, 100),
        torn_in("nothing left of the only segment", &one, 1, 70),
        torn_in("the first of several", &several_open, 1, 100),
        torn_in("a middle one, nothing left of it", &several_open, 2, 80),
        torn_in("the last, after sealed ones", &some_sealed, last, 70),
    ];
    // After the tear: a segment without its header, and one of only zeros.
    let odd = several_open.lab.on(several_open.disk());
    change(&odd.twin, &dir().log(SegmentId(1)), |bytes| bytes.truncate(110));
    change(&odd.twin, &dir().log(SegmentId(2)), |bytes| bytes[..64].fill(0));
    change(&odd.twin, &dir().log(SegmentId(3)), |bytes| bytes.fill(0));
    litter(&odd);
    let step = several_open.before(Place::new(SegmentId(1), 110), SegmentId(1));
    torn.push(Torn::new("odd segments after the tear, and leftovers", odd, &step.pairs));
    // Sealed segments without hints, an end entry cut in half, and leftovers.
    let bare = some_sealed.lab.on(some_sealed.disk());
    bare.delete_hints();
    let middle = SegmentId(last - 1);
    let end = some_sealed.end_of(middle) - 8;
    let place = Place::new(middle, end);
    change(&bare.twin, &dir().log(middle), |bytes| {
        bytes.truncate(usize::try_from(end).unwrap());
    });
    litter(&bare);
    let step = some_sealed.before(place, SegmentId(1));
    torn.push(Torn::new("no hints, half an end entry", bare, &step.pairs));
    // Nothing torn: only unsealed segments, one of them without an entry.
    let whole = several_open.lab.on(several_open.disk());
    litter(&whole);
    torn.push(Torn::new("nothing torn, leftovers", whole, several_open.last()));
    torn
}

#[test]
fn recovery_that_dies_at_any_operation_can_be_run_again() {
    let (mut states, mut faults) = (0, 0);
    for torn in all_torn() {
        let once = torn.fresh();
        kill(once.open());
        for kind in [FaultKind::Eio, FaultKind::ShortWrite] {
            for at in 0..once.twin.op_count() {
                let lab = torn.fresh();
                lab.twin.fail(Fault::new(kind).after(at).for_ever());
                // A failure to remove a file that nothing needs may be ignored.
                if let Ok(db) = lab.try_open() {
                    assert_eq!(snapshot(&db), torn.pairs, "{}", torn.name);
                    kill(db);
                }
                assert!(lab.twin.fault_count() > 0);
                faults += 1;
                torn.check_run_again(&lab.killed(), &format!("{kind:?} at operation {at}"));
                let mut random = Random(at as u64);
                let keep = lab.powered_off(|_| random.below(2) == 0);
                torn.check_run_again(&keep, &format!("{kind:?} at operation {at}, power cut"));
                states += 4;
            }
        }
    }
    println!("{states} states opened, {faults} faults");
}

#[test]
fn recovery_on_a_full_or_interrupting_disk_can_be_run_again() {
    for torn in all_torn() {
        let once = torn.fresh();
        kill(once.open());
        for kind in [FaultKind::Enospc, FaultKind::Interrupted, FaultKind::Eio] {
            for at in 0..once.twin.op_count() {
                let lab = torn.fresh();
                lab.twin.fail(Fault::new(kind).after(at));
                let when = format!("{kind:?} at operation {at}");
                if let Ok(db) = lab.try_open() {
                    assert_eq!(snapshot(&db), torn.pairs, "{}, {when}", torn.name);
                    kill(db);
                }
                torn.check_kept(&lab.twin, &when);
                // The same on the disk of the failure: nothing that failed is still in the way.
                if lab.twin.fault_count() > 0 {
                    let db = lab.open();
                    assert_eq!(snapshot(&db), torn.pairs, "{}, {when}", torn.name);
                    kill(db);
                }
                torn.check_run_again(&lab.killed(), &when);
            }
        }
    }
}

/// A call that only reads fails. Unreadable data must not be mistaken for missing data.
#[test]
fn recovery_that_fails_to_read_cuts_nothing_for_it() {
    let mut faults = 0;
    for torn in all_torn() {
        let once = torn.fresh();
        kill(once.open());
        for at in 0..once.twin.call_count() {
            let lab = torn.fresh();
            lab.twin.fail(Fault::new(FaultKind::Eio).reads_too().after(at));
            let when = format!("call {at}");
            if let Ok(db) = lab.try_open() {
                assert_eq!(snapshot(&db), torn.pairs, "{}, {when}", torn.name);
                kill(db);
            }
            faults += lab.twin.fault_count();
            torn.check_run_again(&lab.killed(), &when);
        }
    }
    println!("{faults} faults");
}

#[test]
fn recovery_that_loses_power_at_any_operation_can_be_run_again() {
    let choices = if long() { 40 } else { 3 };
    let mut states = 0;
    for torn in all_torn() {
        let once = torn.fresh();
        kill(once.open());
        for ops in 0..=once.twin.op_count() {
            let image =
                |keep: &mut dyn FnMut() -> bool| once.on(once.twin.power_image(ops, |_| keep()));
            torn.check_run_again(&image(&mut || false), &format!("nothing kept at {ops}"));
            torn.check_run_again(&image(&mut || true), &format!("all kept at {ops}"));
            for seed in 0..choices {
                let mut random = Random(seed << 32 | ops as u64);
                let disk = image(&mut || random.below(2) == 0);
                torn.check_run_again(&disk, &format!("seed {seed} at {ops}"));
            }
            states += 2 * (2 + choices);
        }
    }
    println!("{states} states opened");
}

#[test]
fn recovery_can_be_interrupted_twice() {
    let step = if long() { 1 } else { 3 };
    for torn in all_torn() {
        let once = torn.fresh();
        kill(once.open());
        for first in (0..once.twin.op_count()).step_by(step) {
            let begun = once.on(once.twin.power_image(first, |_| false));
            let image = begun.twin.fork();
            kill(begun.open());
            for second in (0..begun.twin.op_count()).step_by(step) {
                let when = format!("power cut at {first}, then at {second}");
                let disk = begun.twin.power_image(second, |_| false);
                torn.check_run_again(&torn.lab.on(disk), &when);
            }
            torn.check_run_again(&torn.lab.on(image), &format!("power cut at {first}"));
        }
    }
}
