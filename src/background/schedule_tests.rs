//! A crew under the scheduler: waking, resting, giving up and ending, in many orders.
//!
//! - The threads of the crew are tasks of the schedule. Work that rests until it is woken rests
//!   without a limit, so a wake that gets lost leaves all tasks waiting, which the scheduler
//!   reports.
//! - A crew catches the panics of its work, so only the main task of a schedule checks anything.

use std::sync::Arc;
use std::time::Duration;

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

use super::crew::{Shared, Signal};
use crate::process::Opener;

/// Number of schedules of each kind.
const TIMES: usize = 2_000;

const FOREVER: Option<Duration> = Some(Duration::MAX);
const PATIENT: Duration = Duration::from_micros(20);

/// Runs a crew of this many threads in many orders. The closure returns when it is done with it.
fn check(threads: usize, act: fn(&Arc<Shared>)) {
    let schedule = move || {
        let shared = Shared::new(Opener::default());
        let start = || {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.work())
        };
        let threads: Vec<_> = (0..threads).map(|_| start()).collect();
        act(&shared);
        shared.end();
        for thread in threads {
            thread.join().unwrap();
        }
    };
    shuttle::check_random(schedule, TIMES);
    shuttle::check_pct(schedule, TIMES, 3);
}

/// How much was asked for, and how much of it has been done.
#[derive(Default)]
struct Tally {
    asked: AtomicUsize,
    done: Mutex<usize>,
    changed: Condvar,
}

impl Tally {
    /// What the work does: everything that was asked for by now.
    fn work_off(&self) -> Option<Duration> {
        let asked = self.asked.load(Ordering::SeqCst);
        *self.done.lock().unwrap() = asked;
        self.changed.notify_all();
        FOREVER
    }

    fn ask(&self, signal: &Signal) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        signal.wake();
    }

    fn await_done(&self, asked: usize) {
        let mut done = self.done.lock().unwrap();
        while *done < asked {
            done = self.changed.wait(done).unwrap();
        }
    }
}

fn wake_from_two_tasks(shared: &Arc<Shared>) {
    let pieces = [Duration::ZERO, PATIENT].map(|patience| {
        let (tally, signal) = (Arc::<Tally>::default(), Arc::<Signal>::default());
        let work = Arc::clone(&tally);
        let id = shared.add(&signal, patience, Box::new(move || work.work_off()));
        (tally, signal, id)
    });
    let others = pieces.clone();
    let other =
        thread::spawn(move || others.iter().for_each(|(tally, signal, _)| tally.ask(signal)));
    for (tally, signal, _) in &pieces {
        tally.ask(signal);
        tally.ask(signal);
    }
    for (tally, ..) in &pieces {
        tally.await_done(3);
    }
    other.join().unwrap();
    for (tally, _, id) in pieces {
        shared.give_up(id);
        assert_eq!(Arc::strong_count(&tally), 1, "the closure has been dropped");
    }
}

#[test]
fn schedules_of_wakes_lose_none() {
    check(1, wake_from_two_tasks);
    check(2, wake_from_two_tasks);
}

fn give_up_while_it_runs(shared: &Arc<Shared>) {
    let rounds = Arc::<AtomicUsize>::default();
    let ids = [None, Some(Duration::ZERO), Some(Duration::from_micros(3)), FOREVER].map(|rest| {
        let (signal, rounds) = (Signal::default(), Arc::clone(&rounds));
        let work = move || {
            rounds.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
            rounds.fetch_add(1, Ordering::SeqCst);
            rest
        };
        let id = shared.add(&signal, PATIENT, Box::new(work));
        signal.wake();
        id
    });
    for id in ids {
        shared.give_up(id);
    }
    let ended = rounds.load(Ordering::SeqCst);
    assert!(ended.is_multiple_of(2), "work runs that was given up");
    assert_eq!(Arc::strong_count(&rounds), 1, "a closure remains");
    thread::yield_now();
    assert_eq!(rounds.load(Ordering::SeqCst), ended);
}

#[test]
fn schedules_of_given_up_work_end_it() {
    check(1, give_up_while_it_runs);
    check(2, give_up_while_it_runs);
}

fn rest_for_some_time(shared: &Arc<Shared>) {
    let pieces = [2, 5, 9].map(|micros| {
        let tally = Arc::<Tally>::default();
        let work = Arc::clone(&tally);
        let work = move || {
            work.asked.fetch_add(1, Ordering::SeqCst);
            work.work_off();
            Some(Duration::from_micros(micros))
        };
        (shared.add(&Signal::default(), PATIENT, Box::new(work)), tally)
    });
    for (id, tally) in pieces {
        tally.await_done(2);
        shared.give_up(id);
    }
}

#[test]
fn schedules_of_timed_rests_wake_all() {
    check(1, rest_for_some_time);
    check(3, rest_for_some_time);
}

/// While one thread is busy, the other has to watch the time.
fn rest_during_work_that_waits(shared: &Arc<Shared>) {
    let (ticks, waited) = (Arc::<Tally>::default(), Arc::<Tally>::default());
    let (tick, wait, end) = (Arc::clone(&ticks), Arc::clone(&ticks), Arc::clone(&waited));
    let ticking = move || {
        tick.asked.fetch_add(1, Ordering::SeqCst);
        tick.work_off();
        Some(Duration::from_micros(3))
    };
    let mut is_first = true;
    let waiting = move || {
        if std::mem::take(&mut is_first) {
            return Some(Duration::from_micros(5));
        }
        // By now the other thread may sleep, since this one has watched the time.
        wait.await_done(3);
        end.asked.fetch_add(1, Ordering::SeqCst);
        end.work_off()
    };
    let ids = [
        shared.add(&Signal::default(), Duration::ZERO, Box::new(ticking)),
        shared.add(&Signal::default(), Duration::ZERO, Box::new(waiting)),
    ];
    waited.await_done(1);
    for id in ids {
        shared.give_up(id);
    }
}

#[test]
fn schedules_of_work_that_waits_keep_the_rest_going() {
    check(2, rest_during_work_that_waits);
}

fn end_with_the_work(shared: &Arc<Shared>) {
    let rounds = Arc::<AtomicUsize>::default();
    let work = Arc::clone(&rounds);
    let work = move || {
        let round = work.fetch_add(1, Ordering::SeqCst);
        (round == 0).then_some(Duration::ZERO)
    };
    shared.add(&Signal::default(), Duration::ZERO, Box::new(work));
    shared.end_with_work();
    let own = {
        let shared = Arc::clone(shared);
        thread::spawn(move || shared.work())
    };
    own.join().unwrap();
    assert_eq!(rounds.load(Ordering::SeqCst), 2, "the thread has ended before its work");
}

#[test]
fn schedules_of_a_thread_alone_end_with_its_work() {
    check(1, end_with_the_work);
    check(2, end_with_the_work);
}
