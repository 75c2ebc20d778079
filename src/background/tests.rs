//! Crews with real threads, and the order in which a queue hands out its work.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use super::queue::{GivenUp, Queue, WorkId};
use super::*;
use crate::sync::{Instant, current_thread};

const FOREVER: Duration = Duration::MAX;
const SECOND: Duration = Duration::from_secs(1);

fn crew(len: usize) -> Crew {
    Crew::start(Opener::this().unwrap(), len).unwrap()
}

/// Work that has nothing to do.
const NOTHING: fn() -> Option<Duration> = || Some(FOREVER);

/// Returns work that reports each round, and the reports.
fn reporting() -> (impl FnMut() -> Option<Duration> + Send + 'static, Receiver<()>) {
    let (report, reports) = mpsc::channel();
    let work = move || {
        let _ = report.send(());
        Some(FOREVER)
    };
    (work, reports)
}

/// Takes the first ready piece, as a thread would.
fn take(queue: &mut Queue) -> Option<WorkId> {
    queue.take(current_thread()).map(|(id, _)| id)
}

/// Ends a round.
fn rest(queue: &mut Queue, id: WorkId, rest: Duration, now: Instant) {
    assert!(queue.put_back(id, Box::new(NOTHING), Some(rest), now).is_none());
}

#[test]
fn urgent_work_comes_first_until_the_patience_of_the_rest_ends() {
    let (mut queue, start) = (Queue::default(), Instant::now());
    let patient = queue.add(Box::new(NOTHING), 10 * SECOND, start);
    let urgent = queue.add(Box::new(NOTHING), Duration::ZERO, start + 9 * SECOND);
    assert_eq!(take(&mut queue), Some(urgent));
    rest(&mut queue, urgent, Duration::ZERO, start + 11 * SECOND);
    assert_eq!(take(&mut queue), Some(patient), "urgent work must not starve it");
    rest(&mut queue, patient, FOREVER, start + 12 * SECOND);
    assert_eq!(take(&mut queue), Some(urgent));
    assert_eq!(take(&mut queue), None);
}

#[test]
fn a_backlog_of_patient_work_delays_urgent_work_by_one_piece() {
    let (mut queue, start) = (Queue::default(), Instant::now());
    let backlog: Vec<WorkId> =
        (0..4).map(|_| queue.add(Box::new(NOTHING), SECOND, start)).collect();
    let late = start + 2 * SECOND;
    let urgent: Vec<WorkId> =
        (0..2).map(|_| queue.add(Box::new(NOTHING), Duration::ZERO, late)).collect();
    let taken: Vec<WorkId> = std::iter::from_fn(|| take(&mut queue)).collect();
    let turns = [backlog[0], urgent[0], backlog[1], urgent[1], backlog[2], backlog[3]];
    assert_eq!(taken, turns);
}

#[test]
fn pieces_that_always_have_more_to_do_take_turns() {
    let (mut queue, start) = (Queue::default(), Instant::now());
    let ids: Vec<WorkId> = (0..3).map(|_| queue.add(Box::new(NOTHING), SECOND, start)).collect();
    let mut taken = Vec::new();
    for round in 1..=6 {
        let id = take(&mut queue).unwrap();
        taken.push(id);
        rest(&mut queue, id, Duration::ZERO, start + round * SECOND);
    }
    assert_eq!(taken, [ids.clone(), ids].concat());
}

#[test]
fn work_rests_until_its_time_has_come_or_it_is_woken() {
    let (mut queue, start) = (Queue::default(), Instant::now());
    let id = queue.add(Box::new(NOTHING), Duration::ZERO, start);
    assert_eq!(take(&mut queue), Some(id));
    rest(&mut queue, id, 5 * SECOND, start);
    assert_eq!(queue.next_due(), Some(start + 5 * SECOND));
    queue.wake_due(start + 4 * SECOND);
    assert!(!queue.has_ready());
    queue.wake_due(start + 5 * SECOND);
    assert_eq!((take(&mut queue), queue.next_due()), (Some(id), None));
    rest(&mut queue, id, 5 * SECOND, start);
    queue.wake(id, start);
    queue.wake(id, start);
    assert_eq!(queue.next_due(), None, "a woken piece is not woken again when its time comes");
    assert_eq!((take(&mut queue), take(&mut queue)), (Some(id), None));
    rest(&mut queue, id, FOREVER, start);
    assert_eq!((take(&mut queue), queue.next_due()), (None, None));
}

#[test]
fn a_wake_during_a_round_causes_another_round() {
    let (mut queue, start) = (Queue::default(), Instant::now());
    let id = queue.add(Box::new(NOTHING), Duration::ZERO, start);
    assert_eq!(take(&mut queue), Some(id));
    queue.wake(id, start);
    assert_eq!(take(&mut queue), None, "no two threads run one piece");
    rest(&mut queue, id, FOREVER, start);
    assert_eq!(take(&mut queue), Some(id));
}

#[test]
fn work_that_was_given_up_is_never_handed_out() {
    let (mut queue, start) = (Queue::default(), Instant::now());
    let [ready, timed, untimed, running] =
        [0; 4].map(|_| queue.add(Box::new(NOTHING), Duration::ZERO, start));
    for id in [ready, timed, untimed, running] {
        assert_eq!(take(&mut queue), Some(id));
    }
    for (id, time) in [(ready, Duration::ZERO), (timed, SECOND), (untimed, FOREVER)] {
        rest(&mut queue, id, time, start);
    }
    let this = current_thread();
    for id in [ready, timed, untimed] {
        assert!(matches!(queue.give_up(id, this), GivenUp::Over(Some(_))));
    }
    let other = std::thread::spawn(current_thread).join().unwrap();
    assert!(matches!(queue.give_up(running, this), GivenUp::Here));
    assert!(matches!(queue.give_up(running, other), GivenUp::Elsewhere));
    queue.wake(running, start);
    assert!(queue.put_back(running, Box::new(NOTHING), Some(SECOND), start).is_some());
    assert!(!queue.is_empty(), "it is over once its closure has been dropped");
    queue.end(running);
    queue.wake_due(start + 60 * SECOND);
    assert!(queue.is_empty() && !queue.has_ready() && queue.next_due().is_none());
}

#[test]
fn one_thread_does_the_work_of_many() {
    let crew = crew(1);
    let all: Vec<_> = (0..100)
        .map(|_| {
            let ((work, reports), signal) = (reporting(), Signal::default());
            let worker = crew.employ(&signal, SECOND, work);
            (worker, signal, reports)
        })
        .collect();
    for (_, signal, reports) in &all {
        reports.recv().unwrap();
        signal.wake();
    }
    for (_, _, reports) in &all {
        reports.recv().unwrap();
    }
}

#[test]
fn work_with_a_short_rest_continues_during_work_that_blocks() {
    let crew = crew(3);
    let (block, blocked) = mpsc::channel::<()>();
    let hour = Some(3600 * SECOND);
    let (report, reports) = mpsc::channel();
    let slow = crew.employ(&Signal::default(), Duration::ZERO, move || {
        let _ = report.send(());
        hour
    });
    reports.recv().unwrap();
    let blocking = crew.employ(&Signal::default(), Duration::ZERO, move || {
        let _ = blocked.recv();
        None
    });
    let (report, reports) = mpsc::channel();
    let ticking = crew.employ(&Signal::default(), Duration::ZERO, move || {
        let _ = report.send(());
        Some(Duration::from_micros(10))
    });
    for _ in 0..100 {
        reports.recv().unwrap();
    }
    drop((block, blocking, ticking, slow));
}

#[test]
fn dropping_a_worker_waits_for_the_round_under_way_and_frees_what_the_work_held() {
    let crew = crew(2);
    let (running, in_round) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(2)));
    let held = Arc::new(());
    let work = {
        let (running, in_round, held) =
            (Arc::clone(&running), Arc::clone(&in_round), Arc::clone(&held));
        move || {
            let _ = &held;
            running.store(true, Ordering::Relaxed);
            in_round.wait();
            std::thread::yield_now();
            running.store(false, Ordering::Relaxed);
            Some(FOREVER)
        }
    };
    let worker = crew.employ(&Signal::default(), Duration::ZERO, work);
    in_round.wait();
    drop(worker);
    assert!(!running.load(Ordering::Relaxed));
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn work_may_drop_its_own_worker_and_the_last_handle_of_its_crew() {
    for alone in [false, true] {
        let slot: Arc<Mutex<Option<Worker>>> = Arc::default();
        let (told, done) = mpsc::channel();
        let work = {
            let slot = Arc::clone(&slot);
            move || {
                let worker = slot.lock().unwrap().take();
                let is_dropped = worker.is_some();
                drop(worker);
                is_dropped.then(|| told.send(()).unwrap());
                Some(Duration::from_micros(10))
            }
        };
        let signal = Signal::default();
        let worker = if alone {
            Worker::alone(&signal, work).unwrap()
        } else {
            crew(3).employ(&signal, Duration::ZERO, work)
        };
        *slot.lock().unwrap() = Some(worker);
        done.recv().unwrap();
        // The closure is dropped, and the sender with it.
        assert!(done.recv().is_err());
    }
}

#[test]
fn work_that_ends_may_drop_a_worker_of_its_own_crew() {
    let crew = crew(1);
    let (work, reports) = reporting();
    let held = crew.employ(&Signal::default(), Duration::ZERO, work);
    let _holding = crew.employ(&Signal::default(), Duration::ZERO, move || {
        let _ = &held;
        None
    });
    // Only the work of the held worker can send.
    while reports.recv().is_ok() {}
}

/// Panics when it is dropped.
struct Bomb(Sender<()>);

impl Drop for Bomb {
    fn drop(&mut self) {
        let _ = self.0.send(());
        panic!("on purpose")
    }
}

#[test]
fn a_panic_ends_the_work_and_not_its_thread() {
    let crew = crew(1);
    let panicking = crew.employ(&Signal::default(), Duration::ZERO, || panic!("on purpose"));
    let (dropped, drops) = mpsc::channel();
    let bomb = Bomb(dropped);
    let exploding = crew.employ(&Signal::default(), Duration::ZERO, move || {
        let _ = &bomb;
        None
    });
    drops.recv().unwrap();
    let (work, reports) = reporting();
    let _working = crew.employ(&Signal::default(), Duration::ZERO, work);
    reports.recv().unwrap();
    drop((panicking, exploding));
}

#[test]
fn a_separate_thread_ends_with_its_work() {
    std::thread_local! {
        /// Is dropped at the end of the thread.
        static HELD: Cell<Option<Sender<()>>> = const { Cell::new(None) };
    }
    let (held, ends) = mpsc::channel();
    let mut held = Some(held);
    let worker = Worker::alone(&Signal::default(), move || {
        HELD.set(held.take());
        None
    });
    assert!(ends.recv().is_err());
    drop(worker.unwrap());
}

#[test]
fn dropping_the_last_handle_waits_for_the_threads() {
    let crew = crew(4);
    let rounds = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let rounds = Arc::clone(&rounds);
            let work = move || {
                rounds.fetch_add(1, Ordering::Relaxed);
                Some(Duration::from_nanos(1))
            };
            crew.employ(&Signal::default(), Duration::ZERO, work)
        })
        .collect();
    while rounds.load(Ordering::Relaxed) < 1000 {
        std::thread::yield_now();
    }
    drop(crew);
    let before = rounds.load(Ordering::Relaxed);
    while rounds.load(Ordering::Relaxed) < before + 1000 {
        std::thread::yield_now();
    }
    drop(workers);
    assert_eq!(Arc::strong_count(&rounds), 1);
}

#[test]
fn an_invalid_number_of_threads_is_refused() {
    for (threads, merges) in [(0, 1), (1, 0), (1025, 1), (1, usize::MAX)] {
        let error = Background::with_merges(threads, merges).unwrap_err();
        assert!(error.is_invalid_input(), "{error}");
    }
    let background = Background::new(2).unwrap();
    assert_eq!(format!("{background:?}"), "Background { threads: 2, merges: 1 }");
    background.check().unwrap();
}

#[test]
fn a_panicking_caller_ends_its_work() {
    let crew = crew(1);
    let (work, reports) = reporting();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _worker = crew.employ(&Signal::default(), Duration::ZERO, work);
        panic!("on purpose")
    }));
    assert!(panicked.is_err());
    // Only the work can send.
    while reports.recv().is_ok() {}
}
