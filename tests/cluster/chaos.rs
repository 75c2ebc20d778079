//! What clients see while nodes are killed and halted: each key behaves like one register, and no
//! acknowledged write is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester};

use crate::processes::{CarefulClient, NodeProcess, Tried, cluster};

/// Number of clients at the same time.
const CLIENTS: u64 = 3;
/// Number of keys, one after the other. Each has a history of its own.
const ROUNDS: u64 = 40;
/// Number of operations of a client on each key.
const OPERATIONS: u64 = 6;

/// A sequence of numbers that looks random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

type History = LinearizabilityTester<u64, Register<u64>>;

/// What all clients share: the histories of all keys, and the names of their threads in these.
struct Recorder {
    histories: Vec<Mutex<History>>,
    next_thread: AtomicU64,
    next_value: AtomicU64,
}

impl Recorder {
    fn history(&self, round: u64) -> std::sync::MutexGuard<'_, History> {
        self.histories[usize::try_from(round).unwrap()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn thread(&self) -> u64 {
        self.next_thread.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs the operations of one client.
    fn work(&self, addresses: Vec<String>, seed: u64) {
        let (mut client, mut dice) = (CarefulClient::new(addresses), Dice(seed));
        let mut acknowledged = Vec::new();
        for round in 0..ROUNDS {
            let mut thread = self.thread();
            for _ in 0..OPERATIONS {
                let is_known = if dice.roll(2) == 0 {
                    self.write(&mut client, round, thread)
                } else {
                    self.read(&mut client, round, thread)
                };
                // What may still take effect stays under way, and its thread does nothing more.
                if !is_known {
                    thread = self.thread();
                }
            }
            let line = format!("SET ack:{seed}:{round} {round}");
            if client.run(&line) == Tried::Reply("OK".to_owned()) {
                acknowledged.push(round);
            }
        }
        for round in acknowledged {
            let line = format!("GET ack:{seed}:{round}");
            let found = loop {
                if let Tried::Reply(found) = client.run(&line) {
                    break found;
                }
            };
            assert_eq!(found, format!("'{round}'"), "an acknowledged write is lost");
        }
    }

    fn write(&self, client: &mut CarefulClient, round: u64, thread: u64) -> bool {
        let value = self.next_value.fetch_add(1, Ordering::Relaxed);
        self.history(round).on_invoke(thread, RegisterOp::Write(value)).unwrap();
        match client.run(&format!("SET key:{round} {value}")) {
            Tried::Reply(reply) => {
                assert_eq!(reply, "OK");
                self.history(round).on_return(thread, RegisterRet::WriteOk).unwrap();
                true
            }
            Tried::Unknown => false,
        }
    }

    fn read(&self, client: &mut CarefulClient, round: u64, thread: u64) -> bool {
        self.history(round).on_invoke(thread, RegisterOp::Read).unwrap();
        match client.run(&format!("GET key:{round}")) {
            Tried::Reply(reply) => {
                let found = reply.trim_matches('\'').parse().unwrap_or(0);
                self.history(round).on_return(thread, RegisterRet::ReadOk(found)).unwrap();
                true
            }
            Tried::Unknown => false,
        }
    }
}

/// Kills and halts nodes, one at a time, until the clients are done.
fn disturb(nodes: &mut [NodeProcess], is_done: &AtomicBool, seed: u64) {
    let mut dice = Dice(seed);
    while !is_done.load(Ordering::Relaxed) {
        let at = usize::try_from(dice.roll(nodes.len() as u64)).unwrap();
        let node = &mut nodes[at];
        if dice.roll(2) == 0 {
            node.kill();
            std::thread::sleep(Duration::from_millis(dice.roll(1500)));
            node.start();
        } else {
            node.signal("STOP");
            std::thread::sleep(Duration::from_millis(dice.roll(4000)));
            node.signal("CONT");
        }
        std::thread::sleep(Duration::from_millis(500 + dice.roll(3000)));
    }
}

#[test]
fn each_key_is_linearizable_while_nodes_are_killed_and_halted() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = cluster(3, 2, dir.path());
    let addresses: Vec<String> = nodes.iter().map(|node| node.redis.clone()).collect();
    let histories = (0..ROUNDS).map(|_| Mutex::new(History::new(Register(0))));
    let recorder = Recorder {
        histories: histories.collect(),
        next_thread: AtomicU64::new(0),
        next_value: AtomicU64::new(1),
    };
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let disturber = scope.spawn(|| disturb(&mut nodes, &is_done, 7));
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|seed| {
                let (recorder, addresses) = (&recorder, addresses.clone());
                scope.spawn(move || recorder.work(addresses, seed))
            })
            .collect();
        let ended: Vec<_> = clients.into_iter().map(ScopedJoinHandle::join).collect();
        is_done.store(true, Ordering::Relaxed);
        disturber.join().unwrap();
        for client in ended {
            client.unwrap();
        }
    });
    for (round, history) in recorder.histories.iter().enumerate() {
        let history = history.lock().unwrap();
        assert!(history.is_consistent(), "key:{round} is no register: {history:?}");
    }
}

/// Moves money between accounts, as long as nobody else has touched them meanwhile.
fn transfer(client: &mut CarefulClient, dice: &mut Dice) {
    let (from, to) = (dice.roll(4), dice.roll(4));
    let amount = dice.roll(10);
    for line in [
        &*format!("WATCH {{bank}}{from} {{bank}}{to}"),
        "MULTI",
        &*format!("DECRBY {{bank}}{from} {amount}"),
        &*format!("INCRBY {{bank}}{to} {amount}"),
        "EXEC",
    ] {
        // A connection that has ended has forgotten the transaction. The next one begins anew.
        match client.run(line) {
            Tried::Reply(reply) if !reply.starts_with("(error)") => {}
            _ => {
                client.reconnect();
                return;
            }
        }
    }
}

#[test]
fn transfers_keep_the_sum_while_nodes_are_killed_and_halted() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = cluster(3, 2, dir.path());
    let addresses: Vec<String> = nodes.iter().map(|node| node.redis.clone()).collect();
    let mut client = CarefulClient::new(addresses.clone());
    for account in 0..4 {
        assert_eq!(client.run(&format!("SET {{bank}}{account} 100")), Tried::Reply("OK".into()));
    }
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let disturber = scope.spawn(|| disturb(&mut nodes, &is_done, 11));
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|seed| {
                let addresses = addresses.clone();
                scope.spawn(move || {
                    let (mut client, mut dice) = (CarefulClient::new(addresses), Dice(seed));
                    (0..60).for_each(|_| transfer(&mut client, &mut dice));
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
        disturber.join().unwrap();
    });
    let sum = loop {
        if let Tried::Reply(reply) = client.run("MGET {bank}0 {bank}1 {bank}2 {bank}3") {
            let numbers = reply.split(|it: char| !it.is_ascii_digit() && it != '-');
            break numbers.filter_map(|it| it.parse::<i64>().ok()).sum::<i64>();
        }
    };
    assert_eq!(sum, 400);
}
