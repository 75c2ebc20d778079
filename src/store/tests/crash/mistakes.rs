//! Mistakes that the enumeration must detect, each made by an otherwise sound engine. A check that
//! detects nothing proves nothing.
//!
//! - A mistake counts as detected if a state is judged wrong, or if the engine itself refuses to
//!   continue.
//! - The other tests judge the same workloads without a mistake.

use super::super::story::long;
use super::enumerate::{MODES, setting};
use super::*;
use crate::mistake::{Mistake, make};

/// The mistakes to be detected.
const MISTAKES: [Mistake; 24] = [
    Mistake::NoSync,
    Mistake::LogNotSynced,
    Mistake::RotatedNotSynced,
    Mistake::ReturnsBeforeSync,
    Mistake::CreateNotSynced,
    Mistake::HeaderNotSynced,
    Mistake::ManifestNotSynced,
    Mistake::RenameNotSynced,
    Mistake::SpareInPlace,
    Mistake::ManifestStale,
    Mistake::SealNotSynced,
    Mistake::OutputNotSynced,
    Mistake::SwapBeforeLog,
    Mistake::RemovedFirst,
    Mistake::OutputYoungest,
    Mistake::TombstonesDropped,
    Mistake::ExpiredForgotten,
    Mistake::BatchTorn,
    Mistake::ChecksumOff,
    Mistake::HintTrusted,
    Mistake::MarkAhead,
    Mistake::RecoveryNotSynced,
    Mistake::BackupNotSynced,
    Mistake::PolicyNotSynced,
];

/// Operations that come close to every mistake: rotations between syncs; merges of single segments
/// with tombstones and expired entries; writes during and after a merge; and changes of the sync
/// policy, with a put that keeps a time to live.
fn close_calls() -> Vec<Op> {
    let put = |key, sync| Op::Put { key, size: 30, ttl: None, sync };
    let merge_one = |at: u64| [Op::BeginMerge { segments: 1 << at }, Op::Merge { steps: 100 }];
    let mut ops = vec![put(0, true), put(1, false), put(2, false), put(3, false), put(4, false)];
    ops.extend([put(5, false), Op::Work, Op::Sync, put(6, false)]);
    ops.extend([Op::Delete { key: 0, sync: false }, put(1, false), put(3, true)]);
    let changes = vec![(2, Some(20)), (3, None), (6, Some(20))];
    ops.extend([Op::Batch { changes, sync: false }, Op::Work, Op::Sync]);
    ops.extend([
        Op::Put { key: 2, size: 9, ttl: Some(5), sync: false },
        put(4, false),
        put(5, true),
    ]);
    ops.extend([put(4, false), Op::Work, Op::Advance { seconds: 10 }]);
    ops.extend((1..5).flat_map(merge_one));
    // All segments, in the order of the log, and of the keys.
    let (plain, ordered) = (u64::MAX >> 1, u64::MAX);
    let merge_beside = |(segments, steps)| {
        let merge = [Op::BeginMerge { segments }, Op::Merge { steps }];
        let writes = [put(1, false), put(4, false), put(5, false), put(6, false), Op::Work];
        merge.into_iter().chain(writes).chain([Op::Merge { steps: 100 }])
    };
    let merges = [(plain, 5), (plain, 8), (plain, 11), (ordered, 9), (ordered, 13)];
    ops.extend(merges.into_iter().flat_map(merge_beside));
    ops.extend([put(1, false), Op::Delete { key: 5, sync: false }]);
    ops.extend([Op::MergeAll, put(0, true), put(1, false), Op::Kill, put(2, false)]);
    ops.extend([put(5, false), Op::SetSyncPolicy { policy: 0 }, put(6, false)]);
    ops.extend([
        Op::SetSyncPolicy { policy: 2 },
        put(1, false),
        Op::Delete { key: 5, sync: false },
    ]);
    ops.push(Op::Put { key: 2, size: 9, ttl: Some(50), sync: false });
    ops.push(Op::Keep { key: 2, size: 12, sync: false });
    ops.extend([Op::Backup, put(3, false), Op::Reopen, put(3, true), Op::Clear, put(2, true)]);
    ops
}

/// Returns how a mistake is detected, as the message of the detecting check, or `None`.
fn caught(mistake: Mistake) -> Option<String> {
    let by_crash = |effort: Effort, (name, policy, mode): (&str, SyncPolicy, AppendMode)| {
        let mut setting = setting(policy, mode);
        setting.options = setting.options.segment_entries(3);
        let result = make(mistake, || {
            let run = Run::of(&setting, &close_calls());
            Judge::all(&run, effort, 16)
        });
        result.err().map(|panic| format!("{name}: {}", told(&*panic)))
    };
    if mistake == Mistake::HintTrusted {
        // A hint is synced before it gets its name, so no crash damages one.
        let result =
            make(mistake, crate::store::tests::recovery::corruption::any_byte_of_a_hint_damaged);
        return result.err().map(|panic| told(&*panic));
    }
    let glances = MODES.into_iter().map(|mode| (Effort::GLANCE, mode));
    let mut looks = glances.chain([(Effort::QUICK, MODES[0])]);
    looks.find_map(|(effort, mode)| by_crash(effort, mode))
}

/// Returns the message of a panic, without the long lists in it.
fn told(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map_or("", String::as_str);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("  ")).collect();
    lines.join(" ").chars().take(200).collect()
}

/// Without a mistake, the close calls end well.
#[test]
fn close_calls_without_a_mistake_are_sound() {
    for (name, policy, mode) in MODES {
        let mut setting = setting(policy, mode);
        setting.options = setting.options.segment_entries(3);
        let run = Run::of(&setting, &close_calls());
        let effort = if long() { Effort::LONG } else { Effort::GLANCE };
        println!("{name}: {}", Judge::all(&run, effort, 16));
    }
}

#[test]
fn every_mistake_is_detected() {
    let mut missed = Vec::new();
    for mistake in MISTAKES {
        match caught(mistake) {
            Some(told) => println!("{mistake:?}: {told}"),
            None => missed.push(mistake),
        }
    }
    println!("{} of {} mistakes detected", MISTAKES.len() - missed.len(), MISTAKES.len());
    assert_eq!(missed, []);
}

/// The same disk may be right before a backup has returned, and wrong afterwards, so a state judged
/// before is judged again. Regression: it was not, and so a missing backup was never detected.
#[test]
fn a_missing_backup_is_detected_once_it_has_returned() {
    let (_, policy, mode) = MODES[0];
    let put = Op::Put { key: 1, size: 9, ttl: None, sync: true };
    let run = Run::of(&setting(policy, mode), &[put, Op::Backup]);
    let last = run.points.len() - 1;
    let returned = run.points[last];
    assert_eq!(returned.backups, 1);
    let under_way = Point { backups: 0, ..returned };
    let mut judge = Judge::new(&run, Effort::GLANCE, 1);
    let mut is_right = |path: &str, point: &Point| {
        let image = run.lab.twin.kill_image(last);
        image.delete_file(Path::new(path));
        let judged = std::panic::AssertUnwindSafe(|| {
            judge.state(image, point, point.durable, &|| path.to_owned());
        });
        std::panic::catch_unwind(judged).is_ok()
    };
    assert!(is_right("/backup0/MANIFEST", &under_way));
    assert!(!is_right("/backup0/MANIFEST", &returned));
    // A backup with a manifest has to be complete.
    assert!(!is_right("/backup0/0000000001.log", &under_way));
    assert!(is_right("/no such file", &returned));
}
