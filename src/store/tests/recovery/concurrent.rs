//! Readers that open or refresh while a writer changes the store between any two of their calls.
//! They finish soon, and see the state at one moment.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::options::MergeOptions;
use crate::repair::verify_on;
use crate::store::tests::*;

/// The writer's work in each of its turns.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// Rotates and seals.
    Seals,
    /// Also folds the segments at some place of the log.
    Merges,
    /// Also merges everything.
    MergesAll,
    /// Also clears now and then.
    Clears,
}

const WORKS: [Work; 4] = [Work::Seals, Work::Merges, Work::MergesAll, Work::Clears];

/// A writer with many small segments, and every state that the store has had.
struct Writer {
    db: Bitcask,
    states: Vec<Pairs>,
    turns: u32,
}

impl Writer {
    fn new(lab: &Lab) -> Self {
        let db = lab.open();
        let mut writer = Self { db, states: vec![Pairs::new()], turns: 0 };
        for _ in 0..60 {
            writer.write();
        }
        writer
    }

    /// Puts two keys and deletes one in a batch, so that only the recorded states can be seen.
    fn write(&mut self) {
        self.turns += 1;
        let (turn, mut state) = (self.turns, self.states.last().unwrap().clone());
        let value = format!("{turn} {}", "x".repeat(turn as usize % 90));
        let (old, new) = (format!("k{}", turn % 17), format!("k{}", turn * 7 % 23));
        let gone = format!("k{}", turn * 5 % 23);
        self.db.write(Batch::new().put(&old, &value).put(&new, &value).delete(&gone)).unwrap();
        state.insert(old.into_bytes(), value.clone().into_bytes());
        state.insert(new.into_bytes(), value.into_bytes());
        state.remove(gone.as_bytes());
        self.states.push(state);
        self.db.inner.log().unwrap().rotate_active().unwrap();
        self.db.inner.work();
    }

    fn turn(&mut self, work: Work) {
        self.write();
        let ids: Vec<u32> = self.db.segments().iter().map(|segment| segment.id).collect();
        match work {
            Work::Merges => {
                let at = self.turns as usize * 3 % ids.len().max(2);
                let some = ids.iter().copied().skip(at).take(3);
                self.db.merge_opt(MergeOptions::new().segments(some)).unwrap();
            }
            Work::MergesAll => drop(self.db.merge_opt(MergeOptions::new().force(true)).unwrap()),
            Work::Clears if self.turns.is_multiple_of(4) => {
                self.db.clear().unwrap();
                self.states.push(Pairs::new());
            }
            Work::Seals | Work::Clears => {}
        }
    }
}

fn lab() -> Lab {
    let lab = Lab::new();
    let options = lab.options.clone().segment_entries(6).merge_policy(crate::MergePolicy::Manual);
    lab.with(options)
}

/// Runs a reader while a writer has a turn after every so many of its calls. Returns the reader's
/// result, the states of the store meanwhile, and the number of reads of the manifest.
fn with_writer<T>(
    lab: &Lab,
    writer: &Arc<Mutex<Writer>>,
    (work, every): (Work, usize),
    run: impl FnOnce() -> T,
) -> (T, Vec<Pairs>, usize) {
    let (calls, manifests) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let before = writer.lock().states.len() - 1;
    let (counted, working) = (Arc::clone(&manifests), Arc::clone(writer));
    let turn = move |opened: Option<&Path>| {
        let is_manifest = opened.is_some_and(|path| path.ends_with("MANIFEST"));
        counted.fetch_add(usize::from(is_manifest), Ordering::Relaxed);
        if (calls.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every) {
            working.lock().turn(work);
        }
    };
    let result = lab.twin.with_interference(turn, run);
    let states = writer.lock().states[before..].to_vec();
    (result, states, manifests.load(Ordering::Relaxed))
}

/// The writer's work, and the number of a reader's calls between two of its turns. A writer that
/// replaces everything faster than a reader can open it cannot be followed.
fn cases() -> impl Iterator<Item = (Work, usize)> {
    let every = |work| match work {
        Work::MergesAll => &[64, 128, 300][..],
        _ => &[7, 13, 29, 64, 128, 300][..],
    };
    WORKS.into_iter().flat_map(move |work| every(work).iter().map(move |every| (work, *every)))
}

/// Regression: each change of the manifest discarded all the work done so far, up to a hundred
/// times.
#[test]
fn a_reader_opens_soon_despite_a_busy_writer_and_sees_one_moment() {
    for (work, every) in cases() {
        let lab = lab();
        let writer = Arc::new(Mutex::new(Writer::new(&lab)));
        let (reader, states, manifests) =
            with_writer(&lab, &writer, (work, every), || lab.open_read_only());
        let told = format!("{work:?} at every {every} calls: {manifests} manifests were read");
        println!("{told}, {} turns", states.len() - 1);
        assert!(states.contains(&snapshot(&reader)), "{told}");
        check_figures(&reader);
        assert!(manifests <= 24, "{told}");
        // Removed segments stay readable, and the reader can still refresh.
        writer.lock().turn(Work::MergesAll);
        assert!(states.contains(&snapshot(&reader)), "{told}");
        reader.refresh().unwrap();
        assert_eq!(&snapshot(&reader), writer.lock().states.last().unwrap(), "{told}");
        check_figures(&reader);
    }
}

#[test]
fn a_reader_refreshes_soon_despite_a_busy_writer() {
    for (work, every) in cases() {
        let lab = lab();
        let writer = Arc::new(Mutex::new(Writer::new(&lab)));
        let reader = lab.open_read_only();
        writer.lock().turn(Work::MergesAll);
        for _ in 0..30 {
            writer.lock().write();
        }
        let (result, states, manifests) =
            with_writer(&lab, &writer, (work, every), || reader.refresh());
        let told = format!("{work:?} at every {every} calls: {manifests} manifests were read");
        println!("{told}, {} turns", states.len() - 1);
        assert!(result.expect(&told), "{told}");
        assert!(states.contains(&snapshot(&reader)), "{told}");
        assert!(manifests <= 24, "{told}");
        check_figures(&reader);
        reader.refresh().unwrap();
        assert_eq!(&snapshot(&reader), writer.lock().states.last().unwrap(), "{told}");
    }
}

/// Diagnosis from outside must not report such a store as damaged.
#[test]
fn diagnosis_says_that_a_busy_store_would_open() {
    for (work, every) in cases().filter(|(_, every)| (29..300).contains(every)) {
        let lab = lab();
        let writer = Arc::new(Mutex::new(Writer::new(&lab)));
        let look = || verify_on(&lab.env(), Path::new(DIR)).unwrap();
        let (diagnosis, ..) = with_writer(&lab, &writer, (work, every), look);
        assert!(diagnosis.opening.is_ok(), "{work:?}, {every}: {:?}", diagnosis.opening);
        assert!(diagnosis.damage.is_empty(), "{work:?}, {every}: {:?}", diagnosis.damage);
    }
}
