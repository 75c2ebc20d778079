//! What clients see while nodes are killed and halted: each key behaves like one register, and no
//! acknowledged write is lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester};

use crate::processes::{CarefulClient, NodeProcess, Tried, cluster};
use crate::support::Client;

/// Number of clients at the same time.
const CLIENTS: u64 = 3;
/// Number of times that nodes are killed or halted. Each has a key of its own, and a history.
const DISTURBANCES: u64 = if option_env!("BITCASK_LONG").is_some() { 100 } else { 6 };
/// Time between two operations of a client. It bounds the histories, which are judged by trying.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// The key that is used now.
    round: AtomicU64,
    next_thread: AtomicU64,
    next_value: AtomicU64,
}

impl Recorder {
    fn history(&self, round: u64) -> std::sync::MutexGuard<'_, History> {
        let at = usize::try_from(round).unwrap();
        self.histories[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn thread(&self) -> u64 {
        self.next_thread.fetch_add(1, Ordering::Relaxed)
    }

    /// Reads and writes until all disturbances are over.
    fn work(&self, addresses: Vec<String>, seed: u64) {
        let (mut client, mut dice) = (CarefulClient::new(addresses), Dice(seed));
        // The first one waits for what a halted node will say. The others go on elsewhere, and
        // change what that node still has.
        client.patience = Duration::from_secs(if seed == 1 { 20 } else { 1 });
        let (mut acknowledged, mut number) = (Vec::new(), 0);
        let (mut thread, mut last) = (self.thread(), 0);
        loop {
            let round = self.round.load(Ordering::Acquire);
            if round == DISTURBANCES {
                break;
            }
            if round != last {
                (thread, last) = (self.thread(), round);
            }
            let is_known = if dice.roll(2) == 0 {
                self.write(&mut client, round, thread)
            } else {
                self.read(&mut client, round, thread)
            };
            // What may still take effect stays under way, and its thread does nothing more.
            if !is_known {
                thread = self.thread();
            }
            number += 1;
            let line = format!("SET ack:{seed}:{number} {number}");
            if client.run(&line) == Tried::Reply("OK".to_owned()) {
                acknowledged.push(number);
            }
            std::thread::sleep(PAUSE);
        }
        for number in acknowledged {
            let line = format!("GET ack:{seed}:{number}");
            let found = loop {
                if let Tried::Reply(found) = client.run(&line) {
                    break found;
                }
            };
            assert_eq!(found, format!("'{number}'"), "an acknowledged write is lost");
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

/// Kills and halts nodes, one at a time. Begins another round after each.
fn disturb(nodes: &mut [NodeProcess], round: &AtomicU64, seed: u64) {
    let mut dice = Dice(seed);
    for number in 0..DISTURBANCES {
        std::thread::sleep(Duration::from_millis(500 + dice.roll(1000)));
        // A leader has most to lose. Every second time, it is halted for longer than the others
        // need to elect another one.
        let leader = nodes.iter().find_map(|node| {
            let status = node.admin().status().ok()?;
            status.groups.iter().find(|group| group.number == 1)?.leader
        });
        let at = nodes.iter().position(|node| Some(node.id) == leader);
        let at = at.unwrap_or_else(|| usize::try_from(dice.roll(nodes.len() as u64)).unwrap());
        let node = &mut nodes[at];
        if number % 2 == 0 {
            node.signal("STOP");
            std::thread::sleep(Duration::from_secs(9));
            node.signal("CONT");
        } else {
            node.kill();
            std::thread::sleep(Duration::from_millis(dice.roll(2000)));
            node.start();
        }
        std::thread::sleep(Duration::from_millis(500 + dice.roll(1000)));
        round.fetch_add(1, Ordering::AcqRel);
    }
}

#[test]
fn each_key_is_linearizable_while_nodes_are_killed_and_halted() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = cluster(3, 1, dir.path());
    let addresses: Vec<String> = nodes.iter().map(|node| node.redis.clone()).collect();
    let histories = (0..DISTURBANCES).map(|_| Mutex::new(History::new(Register(0))));
    let recorder = Recorder {
        histories: histories.collect(),
        round: AtomicU64::new(0),
        next_thread: AtomicU64::new(0),
        next_value: AtomicU64::new(1),
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|seed| {
                let (recorder, addresses) = (&recorder, addresses.clone());
                scope.spawn(move || recorder.work(addresses, seed))
            })
            .collect();
        disturb(&mut nodes, &recorder.round, 7);
        for client in clients {
            client.join().unwrap();
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
        match client.run_here(line) {
            Some(Tried::Reply(reply)) if !reply.starts_with("(error)") => {}
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
    let round = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|seed| {
                let (addresses, round) = (addresses.clone(), &round);
                scope.spawn(move || {
                    let (mut client, mut dice) = (CarefulClient::new(addresses), Dice(seed));
                    client.patience = Duration::from_secs(if seed == 1 { 20 } else { 1 });
                    while round.load(Ordering::Acquire) < DISTURBANCES {
                        transfer(&mut client, &mut dice);
                    }
                })
            })
            .collect();
        disturb(&mut nodes, &round, 11);
        for client in clients {
            client.join().unwrap();
        }
    });
    let sum = loop {
        if let Tried::Reply(reply) = client.run("MGET {bank}0 {bank}1 {bank}2 {bank}3") {
            let numbers = reply.split(|it: char| !it.is_ascii_digit() && it != '-');
            break numbers.filter_map(|it| it.parse::<i64>().ok()).sum::<i64>();
        }
    };
    assert_eq!(sum, 400);
}

#[test]
fn a_leader_that_was_halted_serves_nothing_stale() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = cluster(3, 1, dir.path());
    let all: Vec<String> = nodes.iter().map(|node| node.redis.clone()).collect();
    for round in 0..3 {
        let mut client = CarefulClient::new(all.clone());
        assert_eq!(client.run("SET key old"), Tried::Reply("OK".into()));
        let leader = nodes.iter().find_map(|node| {
            let status = node.admin().status().ok()?;
            status.groups.iter().find(|group| group.number == 1)?.leader
        });
        let leader = nodes.iter().find(|node| Some(node.id) == leader).unwrap();
        let mut halted = Client::new(&leader.redis).unwrap();
        assert_eq!(halted.run("GET key").unwrap(), "'old'");
        leader.signal("STOP");
        let others = all.iter().filter(|address| **address != leader.redis).cloned().collect();
        let mut others = CarefulClient::new(others);
        while others.run(&format!("SET key new{round}")) != Tried::Reply("OK".into()) {}
        // The question waits for the node, which goes on where it was halted.
        let asked = std::thread::spawn(move || halted.run("GET key").unwrap());
        std::thread::sleep(Duration::from_millis(200));
        leader.signal("CONT");
        let reply = asked.join().unwrap();
        assert_ne!(reply, "'old'", "a stale read");
    }
}
