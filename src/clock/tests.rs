//! Tests of clocks that are set.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn time_continues_from_the_highest_seen_when_the_clock_is_set_back() {
    let hands = Hands::new();
    let clock = hands.clock();
    let first = clock.now();
    hands.step_back(DAY);
    assert_eq!(clock.now(), first);
    hands.advance(SECOND);
    assert_eq!(clock.now(), first + 1_000_000);
    // By less than it was set back.
    hands.jump(SECOND * 3600);
    assert_eq!(clock.now(), first + 1_000_000);
    // By more than that.
    hands.jump(DAY);
    assert_eq!(clock.now(), first + 1_000_000 + 3600 * 1_000_000);
    assert_eq!(clock.read(), Now::at(clock.now()));
}

#[test]
fn the_wall_clock_is_read_again_after_an_interval() {
    let hands = Hands::new();
    let clock = Clock::new(TimeSource::Hands(hands.clone()), LOOK_INTERVAL);
    let first = clock.now();
    hands.jump(DAY);
    assert_eq!(clock.now(), first);
    hands.advance(Duration::from_micros(LOOK_INTERVAL - 1));
    assert_eq!(clock.now(), first + LOOK_INTERVAL - 1);
    hands.advance(Duration::from_micros(1));
    assert_eq!(clock.now(), first + LOOK_INTERVAL + 86_400_000_000);
}

#[test]
fn the_system_clock_follows_the_wall_clock() {
    let clock = Clock::system();
    let (before, now, after) = (clock.wall(), clock.now(), clock.wall());
    // Setting this machine's clock while the test runs makes it fail.
    assert!(before <= now + 2 && now <= after + 2, "{before} {now} {after}");
    let times: Vec<u64> = (0..1000).map(|_| clock.now()).collect();
    assert!(times.is_sorted());
}

#[test]
fn entries_ahead_of_the_clock_expire_by_the_time_of_the_log() {
    let hands = Hands::new();
    let clock = hands.clock();
    let wall = clock.now();
    let log = wall + 86_400_000_000;
    clock.resume(log);
    assert_eq!(clock.now(), log);
    let judged = clock.read();
    let edge = wall + BURST;
    assert_eq!((judged.of(edge), judged.of(edge + 1), judged.of(log)), (wall, log, log));
    hands.advance(SECOND);
    let later = clock.read();
    assert_eq!((later.of(edge), later.of(edge + 1)), (wall + 1_000_000, log + 1_000_000));
    // The wall clock overtakes the log.
    hands.jump(DAY * 2);
    assert_eq!(clock.read().of(wall), clock.read().of(log));
}

#[test]
fn a_deadline_judges_each_entry_by_its_own_time() {
    let hands = Hands::new();
    let clock = hands.clock();
    let wall = clock.now();
    let log = wall + 86_400_000_000;
    clock.resume(log);
    let now = clock.read();
    let old = now.deadline(wall, wall + 2_000_000);
    let both = old.or(clock.deadline(log, log + 1_000_000));
    assert!(!both.is_over(&now) && !old.is_over(&now) && Deadline::NEVER.is_never());
    hands.advance(SECOND);
    assert!(both.is_over(&clock.read()) && !old.is_over(&clock.read()));
    hands.advance(SECOND);
    assert!(old.is_over(&clock.read()));
}

#[test]
fn an_expiry_caused_only_by_a_jump_is_not_certain() {
    let hands = Hands::new();
    let clock = hands.clock();
    let first = clock.now();
    hands.jump(DAY);
    let certain = clock.certain();
    assert!(certain.is_over(first, first) && !certain.is_over(first, first + 1));
    // Entries put after the jump expire by the clock by which they were put.
    assert!(certain.is_over(clock.now() - 1, clock.now()));
    hands.step_back(DAY);
    hands.advance(SECOND);
    assert_eq!(clock.certain().of(first), first + 1_000_000);
    assert_eq!(clock.read().of(first), first + 86_401_000_000);
}

#[test]
fn certain_expiry_is_never_ahead_of_judged_expiry() {
    let hands = Hands::new();
    let clock = hands.clock();
    let wall = clock.now();
    clock.resume(wall + 86_400_000_000);
    hands.step_back(SECOND * 3600);
    let (certain, judged) = (clock.certain(), clock.read());
    for timestamp in [wall - 3_600_000_000, wall, wall + BURST, wall + BURST + 1, clock.now()] {
        assert!(certain.of(timestamp) <= judged.of(timestamp));
    }
}

#[test]
fn a_ttl_that_reaches_the_end_of_time_gives_none() {
    let clock = Hands::new().clock();
    assert_eq!(clock.after(Duration::MAX), None);
    let left = TIME_MAX - 1 - clock.now();
    assert_eq!(clock.after(Duration::from_micros(left)), None);
    assert_eq!(clock.after(Duration::from_micros(left - 1)), Some(TIME_MAX - 2));
}

#[test]
fn a_given_time_moves_only_when_it_is_told_to() {
    let given = GivenTime::default();
    let clock = given.clock();
    assert_eq!((clock.now(), clock.read(), clock.certain()), (0, Now::at(0), Now::at(0)));
    given.advance_to(500);
    given.advance_to(400);
    assert_eq!((clock.now(), clock.read(), clock.certain()), (500, Now::at(500), Now::at(500)));
    // What the log says does not count, however far it is ahead.
    clock.resume(10 * BURST);
    clock.reach(20 * BURST);
    assert_eq!((clock.now(), clock.read(), clock.certain()), (500, Now::at(500), Now::at(500)));
    assert_eq!(clock.expiry_at(700), Some(700));
    assert_eq!(clock.same_expiry(10 * BURST, 700), 700);
    assert!(!clock.read().is_over(10 * BURST, 501));
    assert!(clock.read().is_over(10 * BURST, 500));
    given.advance_to(u64::MAX);
    assert_eq!(clock.now(), TIME_MAX - (1 << 50));
}
