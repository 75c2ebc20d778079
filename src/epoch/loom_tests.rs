//! Models of the guards themselves, which `twin` replaces in all other models: whatever the order,
//! nothing is freed that a guard still reaches.

#![expect(unsafe_code, reason = "the model checker judges accesses")]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use super::barrier;
use crate::counters::{Stripes, presence::Presence};
use crate::sync::{AtomicUsize, Ordering};

const OLD: usize = 1;
const NEW: usize = 2;

/// A value that one thread unlinks and frees while another reads it. The model checker notices if
/// both happen at once.
struct Value {
    linked: AtomicUsize,
    content: UnsafeCell<usize>,
    presence: Presence,
    stripes: Stripes,
}

impl Value {
    fn new() -> Arc<Self> {
        let (presence, stripes) = (Presence::new(), Stripes::default());
        let (linked, content) = (AtomicUsize::new(OLD), UnsafeCell::new(OLD));
        Arc::new(Self { linked, content, presence, stripes })
    }

    /// Reads the value, if it is still linked.
    fn read(&self) {
        if self.linked.load(Ordering::Acquire) == OLD {
            // SAFETY: that is what the model is about.
            self.content.with(|content| assert_eq!(unsafe { *content }, OLD));
        }
    }

    fn unlink(&self) {
        self.linked.store(NEW, Ordering::Release);
    }

    fn free(&self) {
        // SAFETY: as above.
        self.content.with_mut(|content| unsafe { *content = NEW });
    }

    /// Unlinks the value, and frees it if the reader is absent or has left.
    fn unlink_and_free(&self) {
        self.unlink();
        let visit = barrier::of_other_side(|| self.presence.visit());
        if visit.is_some_and(|visit| visit.is_none_or(|visit| self.presence.is_over(visit))) {
            self.free();
        }
    }
}

fn model(read: fn(&Value), unlink_and_free: fn(&Value)) {
    loom::model(move || {
        let value = Value::new();
        let reader = thread::spawn({
            let value = Arc::clone(&value);
            move || read(&value)
        });
        unlink_and_free(&value);
        reader.join().unwrap();
    });
}

fn read_twice(value: &Value) {
    for _ in 0..2 {
        value.presence.enter();
        barrier::of_reader();
        value.read();
        value.presence.leave();
    }
}

#[test]
fn a_thread_that_is_present_keeps_what_it_reads() {
    model(read_twice, Value::unlink_and_free);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_thread_needs_a_barrier_between_entering_and_reading() {
    let read = |value: &Value| {
        value.presence.enter();
        value.read();
        value.presence.leave();
    };
    model(read, Value::unlink_and_free);
}

#[test]
fn a_crowd_keeps_what_it_reads() {
    let read = |value: &Value| {
        let side = value.stripes.crowd().enter();
        barrier::of_reader();
        value.read();
        value.stripes.crowd().leave(side);
    };
    let unlink_and_free = |value: &Value| {
        // An earlier wait has turned the crowd's side.
        let mut earlier = value.stripes.crowd().wait();
        let _ = value.stripes.crowd().is_over(&mut earlier);
        value.unlink();
        let wait = barrier::of_other_side(|| value.stripes.crowd().wait());
        if wait.is_some_and(|mut wait| value.stripes.crowd().is_over(&mut wait)) {
            value.free();
        }
    };
    model(read, unlink_and_free);
}
