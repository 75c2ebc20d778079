use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::prop_oneof;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::*;

const MIB: u64 = 1 << 20;
const BUSY: PlanContext = PlanContext { hour: 12, idle: false };
const IDLE: PlanContext = PlanContext { hour: 12, idle: true };

/// A log segment of 100 MiB of entries, of which this many bytes are dead.
fn segment(id: u32, dead: u64) -> SegmentStats {
    let (size, live_size) = (SegmentStats::HEADER_SIZE + 100 * MIB, 100 * MIB - dead);
    SegmentStats { id, size, live_size, entries: 1_000_000, ..SegmentStats::default() }
}

fn small(id: u32, size: u64) -> SegmentStats {
    let live_size = size - SegmentStats::HEADER_SIZE;
    SegmentStats { id, size, live_size, entries: 100, ..SegmentStats::default() }
}

fn expired(mut stats: SegmentStats, size: u64) -> SegmentStats {
    stats.expired_size = size;
    stats
}

fn merged(mut stats: SegmentStats, tombstone_size: u64) -> SegmentStats {
    stats.merged = true;
    stats.tombstone_size = tombstone_size;
    stats
}

pub(super) fn pool(segments: &[SegmentStats]) -> Pool<'_> {
    static NONE: BTreeSet<u32> = BTreeSet::new();
    Pool { segments, damaged: &NONE, segment_size: 128 * MIB, segment_entries: u64::MAX }
}

fn reasons(plan: &MergePlan) -> Vec<(u32, MergeReason)> {
    plan.segments.iter().map(|planned| (planned.id, planned.reason)).collect()
}

pub(super) fn ids(plan: &MergePlan) -> Vec<u32> {
    plan.segments.iter().map(|planned| planned.id).collect()
}

fn auto(segments: &[SegmentStats], policy: &AutoMerge, at: PlanContext) -> Vec<(u32, MergeReason)> {
    reasons(&plan_auto(pool(segments), policy, at))
}

/// A policy whose triggers are out of reach, except for the one that a test sets.
fn untriggered() -> AutoMerge {
    AutoMerge::new().trigger_dead_percent(100).trigger_dead_size(u64::MAX).small_count(u64::MAX)
}

#[test]
fn one_segment_that_is_mostly_dead_triggers_a_run_that_others_join() {
    let policy = untriggered().trigger_dead_percent(60);
    let segments = |most| [segment(1, 40 * MIB), segment(2, 40 * MIB - 1), segment(3, most)];
    assert_eq!(auto(&segments(60 * MIB - 1), &policy, BUSY), []);
    let plan = auto(&segments(60 * MIB), &policy, BUSY);
    assert_eq!(plan, [(1, MergeReason::DeadRatio), (3, MergeReason::DeadRatio)]);
}

#[test]
fn the_dead_bytes_of_all_segments_trigger_a_run() {
    let policy = untriggered().trigger_dead_size(100 * MIB);
    let segments = |most| [segment(1, 20 * MIB), segment(2, 30 * MIB), segment(3, most)];
    assert_eq!(auto(&segments(50 * MIB - 1), &policy, BUSY), []);
    assert_eq!(auto(&segments(50 * MIB), &policy, BUSY), [(3, MergeReason::DeadRatio)]);
}

#[test]
fn many_dead_bytes_join_whatever_part_they_are() {
    let policy = untriggered().trigger_dead_size(1).dead_size(10 * MIB);
    let segments = [segment(1, 10 * MIB - 1), segment(2, 10 * MIB)];
    assert_eq!(auto(&segments, &policy, BUSY), [(2, MergeReason::DeadSize)]);
}

#[test]
fn expired_bytes_count_as_dead_but_never_exceed_the_content() {
    let policy = AutoMerge::new();
    let segments = [
        expired(segment(1, 30 * MIB), 30 * MIB),
        expired(segment(2, 0), 40 * MIB - 1),
        expired(segment(3, 40 * MIB), MIB),
        expired(segment(4, 20 * MIB), u64::MAX),
    ];
    let plan = plan_auto(pool(&segments), &policy, BUSY);
    let expected =
        [(1, MergeReason::Expired), (3, MergeReason::DeadRatio), (4, MergeReason::Expired)];
    assert_eq!(reasons(&plan), expected);
    // 20 MiB of the second one are needed tombstones, so at most 80 are freed.
    let twice = [segment(1, 0), expired(merged(segment(2, 80 * MIB), 20 * MIB), 60 * MIB)];
    let triggered = |size| auto(&twice, &untriggered().trigger_dead_size(size), BUSY);
    assert_eq!(triggered(80 * MIB), [(2, MergeReason::DeadRatio)]);
    assert_eq!(triggered(80 * MIB + 1), []);
    let by_size = untriggered().trigger_dead_size(1).dead_size(30 * MIB).dead_percent(100);
    let segments = [expired(segment(1, 15 * MIB), 15 * MIB)];
    assert_eq!(auto(&segments, &by_size, BUSY), [(1, MergeReason::Expired)]);
}

#[test]
fn an_idle_store_is_merged_for_less() {
    let segments = [segment(1, 15 * MIB - 1), segment(2, 15 * MIB), segment(3, 40 * MIB)];
    let policy = untriggered();
    assert_eq!(auto(&segments, &policy, BUSY), []);
    let plan = auto(&segments, &policy, IDLE);
    assert_eq!(plan, [(2, MergeReason::Idle), (3, MergeReason::DeadRatio)]);
    assert_eq!(auto(&segments[..1], &policy, IDLE), []);
}

#[test]
fn an_explicit_run_needs_no_trigger_and_no_hour_and_has_no_limit() {
    let policy = untriggered().window(3, 4).bytes_max(1);
    let segments = [segment(1, 15 * MIB), segment(2, 16 * MIB), segment(3, 15 * MIB - 1)];
    assert_eq!(ids(&plan_now(pool(&segments), &policy)), [1, 2]);
}

#[test]
fn a_window_of_hours_may_wrap_midnight() {
    let segments = [segment(1, 100 * MIB)];
    let open = |policy: &AutoMerge| -> Vec<u8> {
        let is_open = |hour: &u8| {
            !plan_auto(pool(&segments), policy, PlanContext { hour: *hour, idle: false }).is_empty()
        };
        (0..24).filter(is_open).collect()
    };
    assert_eq!(open(&AutoMerge::new()).len(), 24);
    assert_eq!(open(&AutoMerge::new().window(2, 5)), [2, 3, 4]);
    assert_eq!(open(&AutoMerge::new().window(22, 1)), [0, 22, 23]);
    assert_eq!(open(&AutoMerge::new().window(22, 0)), [22, 23]);
    assert_eq!(open(&AutoMerge::new().window(0, 1)), [0]);
}

#[test]
fn the_hour_of_a_moment_is_that_of_the_day_in_utc() {
    let hour = |seconds: u64| PlanContext::new(seconds * 1_000_000, false).hour;
    assert_eq!((hour(0), hour(3599), hour(3600), hour(24 * 3600 - 1), hour(24 * 3600)), {
        (0, 0, 1, 23, 0)
    });
    // 2023-11-14T22:13:20Z
    assert_eq!(hour(1_700_000_000), 22);
}

#[test]
fn enough_small_neighbours_trigger_a_run_that_folds_them() {
    let policy = untriggered().small_count(3);
    let segments = [small(1, 10 * MIB - 1), small(2, MIB), small(3, MIB), segment(4, 0)];
    let expected = [1, 2, 3].map(|id| (id, MergeReason::Small));
    assert_eq!(auto(&segments, &policy, BUSY), expected);
    assert_eq!(auto(&segments[1..], &policy, BUSY), []);
    let segments = [small(1, 10 * MIB), small(2, MIB), small(3, MIB), segment(4, 0)];
    assert_eq!(auto(&segments, &policy, BUSY), [], "the first one is not small");
    assert_eq!(auto(&segments, &policy.small_size(0), BUSY), []);
}

#[test]
fn a_small_segment_without_a_small_neighbour_is_left_alone() {
    let lone = [small(1, MIB), segment(2, 0), small(3, MIB), segment(4, 0), small(5, MIB)];
    assert!(plan_now(pool(&lone), &AutoMerge::new()).is_empty());
    assert!(plan_now(pool(&lone[..1]), &AutoMerge::new()).is_empty());
}

#[test]
fn a_small_segment_joins_a_neighbour_that_is_merged() {
    let segments =
        [small(1, MIB), segment(2, 50 * MIB), small(3, MIB), small(4, MIB), segment(5, 0)];
    let plan = reasons(&plan_now(pool(&segments), &AutoMerge::new()));
    let expected = [
        (1, MergeReason::Small),
        (2, MergeReason::DeadRatio),
        (3, MergeReason::Small),
        (4, MergeReason::Small),
    ];
    assert_eq!(plan, expected);
}

#[test]
fn segments_that_hold_much_of_what_fits_are_not_folded_however_small_they_are() {
    let segments = [small(1, 256), small(2, 255), small(3, 255)];
    let limited =
        |segment_size, segment_entries| Pool { segment_size, segment_entries, ..pool(&segments) };
    let folded = |pool, policy: &AutoMerge| -> Vec<u32> { ids(&plan_now(pool, policy)) };
    assert_eq!(folded(limited(1024, u64::MAX), &AutoMerge::new()), [2, 3]);
    assert!(folded(limited(1020, u64::MAX), &AutoMerge::new()).is_empty());
    assert!(folded(limited(512, u64::MAX), &AutoMerge::new()).is_empty());
    assert_eq!(folded(limited(128 * MIB, 404), &AutoMerge::new()), [1, 2, 3]);
    assert!(folded(limited(128 * MIB, 400), &AutoMerge::new()).is_empty());
    let policy = AutoMerge::new().bytes_max(512);
    assert_eq!(folded(limited(128 * MIB, u64::MAX), &policy), [2, 3]);
}

#[test]
fn a_run_prefers_the_largest_gain_and_lists_segments_by_age() {
    let segments = [segment(1, 50 * MIB), segment(2, 90 * MIB), segment(3, 70 * MIB)];
    let limited =
        |bytes| ids(&plan_auto(pool(&segments), &AutoMerge::new().bytes_max(bytes), BUSY));
    assert_eq!(limited(90 * MIB), [1, 2, 3]);
    assert_eq!(limited(90 * MIB - 1), [2, 3]);
    assert_eq!(limited(40 * MIB), [2, 3]);
    assert_eq!(limited(40 * MIB - 1), [2]);
    assert_eq!(limited(1), [2], "one is always taken, or nothing would ever be");
    let segments = [segment(1, 80 * MIB), segment(2, 90 * MIB)];
    assert_eq!(ids(&plan_auto(pool(&segments), &AutoMerge::new().bytes_max(1), BUSY)), [2]);
}

#[test]
fn segments_to_fold_are_cut_first_and_not_left_without_a_neighbour() {
    let segments = [
        small(1, MIB),
        small(2, MIB),
        small(3, MIB),
        segment(4, 0),
        segment(5, 95 * MIB),
        small(6, MIB),
    ];
    let limited =
        |bytes| ids(&plan_auto(pool(&segments), &AutoMerge::new().bytes_max(bytes), BUSY));
    assert_eq!(limited(9 * MIB), [1, 2, 3, 5, 6]);
    assert_eq!(limited(8 * MIB), [1, 2, 3, 5]);
    assert_eq!(limited(7 * MIB), [1, 2, 5]);
    assert_eq!(limited(6 * MIB), [5], "the first small one would be alone");
}

#[test]
fn a_limit_that_holds_two_small_segments_folds_two_neighbours() {
    let mut with_dead = small(4, MIB);
    with_dead.live_size -= MIB / 10;
    let segments = [small(1, MIB), small(2, MIB), segment(3, 0), with_dead, small(5, MIB)];
    let policy = untriggered().small_count(4).small_size(2 * MIB).bytes_max(2 * MIB + 2);
    assert_eq!(auto(&segments, &policy, BUSY), [1, 2].map(|id| (id, MergeReason::Small)));
}

#[test]
fn a_damaged_segment_is_only_merged_if_the_caller_names_it() {
    let segments = [segment(1, 90 * MIB), segment(2, 0), small(3, MIB), small(4, MIB)];
    let damaged = BTreeSet::from([1, 3]);
    let pool = Pool { damaged: &damaged, ..pool(&segments) };
    let policy = untriggered().trigger_dead_size(1);
    assert!(plan_auto(pool, &policy, IDLE).is_empty());
    assert!(plan_now(pool, &policy).is_empty());
    assert_eq!(ids(&plan_all(&segments)), [1, 2, 3, 4]);
    assert_eq!(ids(&plan_chosen(&segments, &damaged).unwrap()), [1, 3]);
}

#[test]
fn segments_kept_for_their_history_join_no_plan_and_trigger_none() {
    let kept = |mut stats: SegmentStats| {
        stats.history = true;
        stats
    };
    let policy = untriggered().trigger_dead_size(60 * MIB).trigger_dead_percent(90);
    // Their dead entries would suffice for the trigger, and those of the others do not.
    let segments = [segment(1, 50 * MIB), kept(segment(2, 100 * MIB)), kept(segment(3, 90 * MIB))];
    assert!(plan_auto(pool(&segments), &policy, BUSY).is_empty());
    assert_eq!(ids(&plan_now(pool(&segments), &policy)), [1]);
    assert_eq!(ids(&plan_all(&segments)), [1]);
    let segments = [segment(1, 60 * MIB), kept(segment(2, 100 * MIB))];
    assert_eq!(ids(&plan_auto(pool(&segments), &policy, BUSY)), [1]);
    match plan_chosen(&segments, &BTreeSet::from([1, 2])) {
        Err(Error::InvalidOption { name: "segments", value, reason }) => {
            assert!(value == "2" && reason.contains("keep_history"), "{value}: {reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(ids(&plan_chosen(&segments, &BTreeSet::from([1])).unwrap()), [1]);
    // They are not folded, and do not count as neighbours.
    let segments = [small(1, MIB), kept(small(2, MIB)), small(3, MIB), kept(small(4, MIB))];
    assert!(plan_now(pool(&segments), &AutoMerge::new()).is_empty());
}

#[test]
fn tombstones_that_a_merge_has_kept_are_live_while_there_are_older_segments() {
    let tombstones = |id| merged(segment(id, 100 * MIB), 100 * MIB);
    let policy = AutoMerge::new();
    assert_eq!(auto(&[segment(1, 0), tombstones(2)], &policy, IDLE), []);
    assert_eq!(auto(&[tombstones(2), segment(3, 0)], &policy, BUSY), [(2, MergeReason::DeadRatio)]);
    let mut of_log = tombstones(2);
    of_log.merged = false;
    assert_eq!(auto(&[segment(1, 0), of_log], &policy, BUSY), [(2, MergeReason::DeadRatio)]);
    // Entries that died since are freed all the same: 60 of 100; the 40 of the tombstones stay.
    let half = merged(segment(2, 100 * MIB), 40 * MIB);
    assert_eq!(auto(&[segment(1, 0), half], &policy, BUSY), [(2, MergeReason::DeadRatio)]);
}

#[test]
fn the_notes_of_a_log_are_not_worth_a_run() {
    let with_dead = |dead: u64| {
        let mut stats = small(1, 64 + 136 + dead);
        stats.live_size = 136;
        stats
    };
    let policy = AutoMerge::new();
    assert!(plan_now(pool(&[with_dead(64)]), &policy).is_empty());
    assert!(!plan_now(pool(&[with_dead(72)]), &policy).is_empty());
    let mut all_dead = with_dead(40);
    (all_dead.size, all_dead.live_size) = (64 + 40, 0);
    assert!(!plan_now(pool(&[all_dead]), &policy).is_empty());
}

#[test]
fn a_threshold_of_zero_takes_any_dead_byte_but_no_live_segment() {
    let policy = AutoMerge::new().trigger_dead_percent(0).dead_percent(0).idle_dead_percent(0);
    let segments = [segment(1, 0), segment(2, 65), segment(3, 0)];
    assert_eq!(auto(&segments, &policy, IDLE), [(2, MergeReason::DeadRatio)]);
}

#[test]
fn an_unknown_segment_is_refused() {
    let segments = [segment(1, 0), segment(3, 0)];
    let plan = plan_chosen(&segments, &BTreeSet::from([3])).unwrap();
    assert_eq!(reasons(&plan), [(3, MergeReason::Chosen)]);
    assert_eq!((plan.size(), plan.live_size()), (segments[1].size, segments[1].live_size));
    match plan_chosen(&segments, &BTreeSet::from([1, 2])) {
        Err(Error::InvalidOption { name: "segments", value, .. }) => assert_eq!(value, "2"),
        other => panic!("{other:?}"),
    }
    assert!(plan_chosen(&segments, &BTreeSet::new()).unwrap().is_empty());
}

/// The kind of an entry in the simulated log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Live,
    Dead,
    /// A delete whose key an older segment may or may not hold.
    Tombstone {
        needed: bool,
    },
    /// Live in the keydir, and expired.
    Expired,
    /// Dead and also expired: counted twice.
    DeadAndExpired,
    End,
}

#[derive(Debug, Clone)]
struct Simulated {
    id: u32,
    merged: bool,
    history: bool,
    entries: Vec<(u64, Kind)>,
}

impl Simulated {
    fn size_of(&self, is_one: impl Fn(Kind) -> bool) -> u64 {
        self.entries.iter().filter(|(_, kind)| is_one(*kind)).map(|(size, _)| size).sum()
    }

    fn stats(&self) -> SegmentStats {
        SegmentStats {
            id: self.id,
            size: SegmentStats::HEADER_SIZE + self.size_of(|_| true),
            live_size: self.size_of(|kind| matches!(kind, Kind::Live | Kind::Expired)),
            tombstone_size: self.size_of(|kind| matches!(kind, Kind::Tombstone { .. })),
            expired_size: self.size_of(|kind| matches!(kind, Kind::Expired | Kind::DeadAndExpired)),
            entries: self.entries.iter().filter(|(_, kind)| *kind != Kind::End).count() as u64,
            merged: self.merged,
            history: self.history,
        }
    }

    /// Bytes that a merge can still free. A tombstone of a log segment counts twice, since finding
    /// out that it is needed is progress too.
    fn unrest(&self) -> u64 {
        let tombstones = self.size_of(|kind| matches!(kind, Kind::Tombstone { .. }));
        self.size_of(|kind| kind != Kind::Live) + if self.merged { 0 } else { tombstones }
    }
}

/// A store of which only sizes are known.
#[derive(Debug, Clone)]
struct Simulation {
    segments: Vec<Simulated>,
    damaged: BTreeSet<u32>,
    segment_size: u64,
    segment_entries: u64,
    next_id: u32,
}

impl Simulation {
    const TOMBSTONE_SIZE: u64 = 40;

    fn stats(&self) -> Vec<SegmentStats> {
        self.segments.iter().map(Simulated::stats).collect()
    }

    fn plan(&self, policy: &AutoMerge, at: PlanContext) -> MergePlan {
        let (segment_size, segment_entries) = (self.segment_size, self.segment_entries);
        let (segments, damaged) = (&*self.stats(), &self.damaged);
        plan_auto(Pool { segments, damaged, segment_size, segment_entries }, policy, at)
    }

    /// Replaces the inputs with outputs at the place of the youngest input.
    fn merge(&mut self, plan: &MergePlan) {
        let inputs = ids(plan);
        let mut outputs: Vec<Simulated> = Vec::new();
        let (mut older_stays, mut place) = (false, 0);
        for (at, segment) in self.segments.iter().enumerate() {
            if !inputs.contains(&segment.id) {
                older_stays = true;
                continue;
            }
            place = at + 1;
            for (size, kind) in segment.entries.iter().copied() {
                let copy = match kind {
                    Kind::Live => (size, kind),
                    Kind::Tombstone { needed: true } if older_stays => (size, kind),
                    Kind::Expired if older_stays => {
                        (Self::TOMBSTONE_SIZE, Kind::Tombstone { needed: true })
                    }
                    _ => continue,
                };
                let fits = |output: &&mut Simulated| {
                    output.stats().size + copy.0 <= self.segment_size
                        && (output.entries.len() as u64) < self.segment_entries
                };
                if let Some(output) = outputs.last_mut().filter(fits) {
                    output.entries.push(copy);
                } else {
                    let (id, entries) = (self.next_id, vec![copy]);
                    self.next_id += 1;
                    outputs.push(Simulated { id, merged: true, history: false, entries });
                }
            }
        }
        self.segments.splice(place..place, outputs);
        self.segments.retain(|segment| !inputs.contains(&segment.id));
    }

    /// Returns how many bytes of a segment a merge certainly frees, if that is worthwhile.
    fn frees_something(&self, at: usize) -> u64 {
        let segment = &self.segments[at];
        let stays = |kind| match kind {
            Kind::Live => true,
            Kind::Tombstone { .. } => segment.merged && at > 0,
            _ => false,
        };
        let given = segment.size_of(|kind| !stays(kind));
        if given <= NOTES_SIZE && segment.size_of(stays) > 0 { 0 } else { given }
    }
}

fn entry() -> impl Strategy<Value = (u64, Kind)> {
    let kind = prop_oneof![
        4 => Just(Kind::Live),
        2 => Just(Kind::Dead),
        1 => Just(Kind::Expired),
        1 => Just(Kind::DeadAndExpired),
        2 => any::<bool>().prop_map(|needed| Kind::Tombstone { needed }),
    ];
    let units = prop_oneof![8 => 6..40_u64, 1 => 40..300_u64];
    (units, kind).prop_map(|(units, kind)| match kind {
        Kind::Tombstone { .. } => (Simulation::TOMBSTONE_SIZE, kind),
        _ => (units * 8, kind),
    })
}

fn simulation() -> impl Strategy<Value = Simulation> {
    let segment = (any::<bool>(), any::<u8>(), vec(entry(), 1..16));
    let segment_entries = prop_oneof![Just(u64::MAX), 1..30_u64];
    // Those after the first `free` are kept for their history.
    let free = prop_oneof![Just(u32::MAX), 0..14_u32];
    (vec(segment, 0..14), 512..8192_u64, segment_entries, free).prop_map(
        |(parts, segment_size, segment_entries, free)| {
            let mut simulation = Simulation {
                segments: Vec::new(),
                damaged: BTreeSet::new(),
                segment_size,
                segment_entries,
                next_id: 1000,
            };
            for (id, (merged, damaged, mut entries)) in (1..).zip(parts) {
                if !merged {
                    entries.push((32, Kind::End));
                }
                if damaged < 16 {
                    simulation.damaged.insert(id);
                }
                let history = id > free && !merged;
                simulation.segments.push(Simulated { id, merged, history, entries });
            }
            simulation
        },
    )
}

fn policy() -> impl Strategy<Value = AutoMerge> {
    let percents = (0..=100_u8, 0..=100_u8, 0..=100_u8);
    let sizes = (1..9000_u64, 1..3000_u64, 0..8192_u64, 1..20_000_u64);
    (percents, sizes, 2..6_u64).prop_map(|((a, b, idle), (trigger, dead, small, max), count)| {
        let policy = AutoMerge::new().trigger_dead_percent(a.max(b)).dead_percent(a.min(b));
        let policy = policy.idle_dead_percent(idle).trigger_dead_size(trigger).dead_size(dead);
        policy.small_size(small).bytes_max(max).small_count(count)
    })
}

#[track_caller]
fn for_all<S: Strategy>(cases_len: u32, cases: &S, check: impl Fn(S::Value)) {
    let config = Config { cases: cases_len, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[4; 32]);
    let result = TestRunner::new_with_rng(config, rng).run(cases, |case| {
        check(case);
        Ok::<(), TestCaseError>(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn planning_without_writes_ends_and_every_run_makes_progress() {
    let cases_len = if cfg!(miri) { 20 } else { 1000 };
    for_all(cases_len, &(simulation(), policy(), any::<bool>()), |(mut store, policy, idle)| {
        let at = PlanContext { hour: 0, idle };
        let runs_max = 2 * store.segments.len();
        for run in 0.. {
            let plan = store.plan(&policy, at);
            if plan.is_empty() {
                break;
            }
            assert!(run < runs_max, "no end after {runs_max} runs");
            assert!(plan.segments.iter().all(|planned| !store.damaged.contains(&planned.id)));
            let kept: BTreeSet<u32> =
                store.segments.iter().filter(|it| it.history).map(|it| it.id).collect();
            assert!(plan.segments.iter().all(|planned| !kept.contains(&planned.id)));
            let folds_only = reasons(&plan).iter().all(|(_, why)| *why == MergeReason::Small);
            let unrest =
                |store: &Simulation| -> u64 { store.segments.iter().map(Simulated::unrest).sum() };
            let before = (unrest(&store), store.segments.len());
            store.merge(&plan);
            let after = (unrest(&store), store.segments.len());
            if folds_only {
                assert!(after.0 <= before.0 && after.1 < before.1, "{plan:?}");
            } else {
                assert!(after.0 < before.0, "{plan:?}");
            }
        }
        for (at, segment) in store.segments.iter().enumerate() {
            let (given, content) = (store.frees_something(at), segment.stats().content_size());
            let reaches = given > 0 && given * 100 >= content * u64::from(policy.idle_dead_percent);
            let is_left_out = segment.history || store.damaged.contains(&segment.id);
            assert!(!(idle && reaches) || is_left_out, "{segment:?}");
        }
    });
}

#[test]
fn a_plan_is_ordered_by_age_and_within_its_limit() {
    let cases_len = if cfg!(miri) { 20 } else { 500 };
    for_all(cases_len, &(simulation(), policy()), |(store, policy)| {
        let plan = store.plan(&policy, IDLE);
        assert!(plan.segments.is_sorted_by_key(|planned| planned.id));
        let copied: u64 = ids(&plan)
            .iter()
            .map(|id| {
                let segment = store.segments.iter().find(|segment| segment.id == *id).unwrap();
                segment.size_of(|kind| kind == Kind::Live)
            })
            .sum();
        assert!(copied <= policy.bytes_max || plan.segments.len() == 1, "{plan:?}");
    });
}
