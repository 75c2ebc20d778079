//! Clients that work while something is done to the nodes, and what they must have seen: each key
//! behaves like one register, a bank of transfers keeps its sum, and no acknowledged write is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester};

use crate::processes::{
    CarefulClient, NodeProcess, Tried, addresses, await_equal, await_leaders, stale_client,
};

/// Number of clients at the same time.
const CLIENTS: u64 = 3;
/// Time between two operations of a client. It bounds the histories, which are judged by trying.
const PAUSE: Duration = Duration::from_millis(100);
/// Number of accounts of the bank, and what each has at first.
const ACCOUNTS: u64 = 4;
const DEPOSIT: u64 = 100;

/// What is done to the nodes, and its name. The nodes that run in the end have to be well.
pub(crate) type Fault = (&'static str, fn(&mut [NodeProcess], &mut Dice));

/// A sequence of numbers that looks random.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    /// Returns a time below so many milliseconds.
    pub(crate) fn millis(&mut self, below: u64) -> Duration {
        Duration::from_millis(self.roll(below))
    }

    /// Chooses one of the nodes.
    pub(crate) fn node(&mut self, nodes: &[NodeProcess]) -> usize {
        usize::try_from(self.roll(nodes.len() as u64)).unwrap()
    }
}

/// Returns how often a list of faults is gone through: `BITCASK_LONG`, or once without it.
pub(crate) fn times() -> usize {
    std::env::var("BITCASK_LONG").map_or(1, |times| times.parse().unwrap_or(20))
}

/// Returns what `BITCASK_SEED` adds to the seeds of all tests, so that other moments are chosen.
fn other_seed() -> u64 {
    std::env::var("BITCASK_SEED").map_or(0, |seed| seed.parse().unwrap())
}

/// What a client has begun with a key, or what came of that. A client has a new name after each
/// command whose outcome is unknown.
#[derive(Debug, Clone)]
enum Event {
    Begun(u64, RegisterOp<u64>),
    Ended(u64, RegisterRet<u64>),
}

/// Returns whether one register could have answered so.
///
/// The judge tries all orders, and must not be given more of them than necessary. What was begun
/// and did not end may take effect at any time. If it is a read, or a write that nobody has read,
/// everything else is possible with it exactly if it is without. A write that was read has taken
/// effect by then, as if it had ended.
fn is_register(events: &[Event]) -> bool {
    let read: BTreeSet<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Ended(_, RegisterRet::ReadOk(value)) => Some(*value),
            _ => None,
        })
        .collect();
    let mut judge = LinearizabilityTester::new(Register(0));
    // The threads whose writes have not ended, by the values that they have written.
    let mut under_way = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        match event.clone() {
            Event::Begun(thread, op) => {
                let is_end = |it: &Event| matches!(it, Event::Ended(found, _) if *found == thread);
                let has_ended = events[at..].iter().any(is_end);
                match op {
                    _ if has_ended => {}
                    RegisterOp::Write(value) if read.contains(&value) => {
                        under_way.insert(value, thread);
                    }
                    _ => continue,
                }
                judge.on_invoke(thread, op).unwrap();
            }
            Event::Ended(thread, ret) => {
                let value = if let RegisterRet::ReadOk(value) = ret { Some(value) } else { None };
                judge.on_return(thread, ret).unwrap();
                if let Some(writer) = value.and_then(|value| under_way.remove(&value)) {
                    judge.on_return(writer, RegisterRet::WriteOk).unwrap();
                }
            }
        }
    }
    judge.is_consistent()
}

#[test]
fn a_register_is_told_from_what_is_none() {
    use Event::{Begun, Ended};
    use RegisterOp::{Read, Write};
    use RegisterRet::{ReadOk, WriteOk};
    // A write whose outcome is unknown takes effect late, or never.
    let late = [
        Begun(1, Write(1)),
        Begun(2, Write(2)),
        Ended(2, WriteOk),
        Begun(2, Read),
        Ended(2, ReadOk(2)),
        Begun(2, Read),
        Ended(2, ReadOk(1)),
    ];
    assert!(is_register(&late));
    assert!(is_register(&late[..5]));
    // What was read does not go away, and what was acknowledged does not either.
    let back = [&late[..], &[Begun(2, Read), Ended(2, ReadOk(2))]].concat();
    assert!(!is_register(&back));
    let lost = [&late[..3], &[Begun(2, Read), Ended(2, ReadOk(0))]].concat();
    assert!(!is_register(&lost));
    let never = [&late[..3], &[Begun(2, Read), Ended(2, ReadOk(3))]].concat();
    assert!(!is_register(&never));
}

/// What all clients share.
struct Recorder {
    /// What happened to each key. Each fault has a key of its own.
    histories: Vec<Mutex<Vec<Event>>>,
    /// The key that is used now.
    round: AtomicU64,
    /// The next name of a thread in a history.
    next_thread: AtomicU64,
    next_value: AtomicU64,
    /// The keys of all acknowledged writes that are made once, with their values.
    acknowledged: Mutex<Vec<(String, u64)>>,
}

impl Recorder {
    fn new(rounds: usize) -> Self {
        let histories = (0..rounds).map(|_| Mutex::default());
        Self {
            histories: histories.collect(),
            round: AtomicU64::new(0),
            next_thread: AtomicU64::new(0),
            next_value: AtomicU64::new(1),
            acknowledged: Mutex::default(),
        }
    }

    fn note(&self, round: u64, event: Event) {
        let history = &self.histories[usize::try_from(round).unwrap()];
        history.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    fn thread(&self) -> u64 {
        self.next_thread.fetch_add(1, Ordering::Relaxed)
    }

    /// Works until all faults are over.
    fn work(&self, addresses: Vec<String>, seed: u64) {
        let (mut client, mut dice) = (CarefulClient::new(addresses), Dice(seed));
        // The first one waits for what a halted node will say. The others go on elsewhere, and
        // change what that node still has.
        client.patience = Duration::from_secs(if seed == 1 { 20 } else { 1 });
        let (mut acknowledged, mut number) = (Vec::new(), 0);
        let (mut thread, mut last) = (self.thread(), 0);
        loop {
            let round = self.round.load(Ordering::Acquire);
            if round >= self.histories.len() as u64 {
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
            let key = format!("ack:{seed}:{number}");
            if client.run(&format!("SET {key} {number}")) == Tried::Reply("OK".to_owned()) {
                acknowledged.push((key, number));
            }
            transfer(&mut client, &mut dice);
            std::thread::sleep(PAUSE);
        }
        let mut all = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(acknowledged);
    }

    fn write(&self, client: &mut CarefulClient, round: u64, thread: u64) -> bool {
        let value = self.next_value.fetch_add(1, Ordering::Relaxed);
        self.note(round, Event::Begun(thread, RegisterOp::Write(value)));
        match client.run(&format!("SET key:{round} {value}")) {
            Tried::Reply(reply) => {
                assert_eq!(reply, "OK");
                self.note(round, Event::Ended(thread, RegisterRet::WriteOk));
                true
            }
            Tried::Unknown => false,
        }
    }

    fn read(&self, client: &mut CarefulClient, round: u64, thread: u64) -> bool {
        self.note(round, Event::Begun(thread, RegisterOp::Read));
        match client.run(&format!("GET key:{round}")) {
            Tried::Reply(reply) => {
                self.note(round, Event::Ended(thread, RegisterRet::ReadOk(number_of(&reply))));
                true
            }
            Tried::Unknown => false,
        }
    }

    /// Asks one node, whatever it is, until all faults are over. A leader that was deposed must not
    /// answer.
    fn watch(&self, address: String) {
        let mut client = CarefulClient::new(vec![address]);
        client.patience = Duration::from_secs(1);
        let mut thread = self.thread();
        loop {
            let round = self.round.load(Ordering::Acquire);
            if round >= self.histories.len() as u64 {
                return;
            }
            self.note(round, Event::Begun(thread, RegisterOp::Read));
            match client.run_here(&format!("GET key:{round}")) {
                Some(Tried::Reply(reply)) => {
                    let found = RegisterRet::ReadOk(number_of(&reply));
                    self.note(round, Event::Ended(thread, found));
                }
                _ => thread = self.thread(),
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Judges what the clients have seen, and what the nodes that run have.
    fn judge(&self, nodes: &[NodeProcess]) {
        for (round, history) in self.histories.iter().enumerate() {
            let history = history.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(is_register(&history), "key:{round} is no register: {history:?}");
        }
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!acknowledged.is_empty());
        let mut client = CarefulClient::new(addresses(nodes));
        let accounts: Vec<_> = (0..ACCOUNTS).map(|it| format!("{{bank}}{it}")).collect();
        let sum = loop {
            if let Tried::Reply(reply) = client.run(&format!("MGET {}", accounts.join(" "))) {
                let numbers = reply.split(|it: char| !it.is_ascii_digit() && it != '-');
                break numbers.filter_map(|it| it.parse::<i64>().ok()).sum::<i64>();
            }
        };
        assert_eq!(sum, i64::try_from(ACCOUNTS * DEPOSIT).unwrap());
        await_equal(nodes);
        let mut views = Vec::new();
        for node in nodes.iter().filter(|node| node.pid().is_some()) {
            let mut client = stale_client(node);
            for (key, value) in &*acknowledged {
                let found = client.run(&format!("GET {key}")).unwrap();
                assert_eq!(found, format!("'{value}'"), "{key} is lost at node {}", node.id);
            }
            let mut others = (0..self.histories.len()).map(|it| format!("key:{it}"));
            let others = others.by_ref().chain(accounts.iter().cloned());
            let view = others.map(|key| client.run(&format!("GET {key}")).unwrap());
            views.push((view.collect::<Vec<_>>(), client.run("DBSIZE").unwrap()));
        }
        assert!(views.windows(2).all(|pair| pair[0] == pair[1]), "the nodes differ: {views:?}");
    }
}

/// Returns the number that a key holds. At first, it is 0.
fn number_of(reply: &str) -> u64 {
    if reply == "nil" { 0 } else { reply.trim_matches('\'').parse().unwrap() }
}

/// Moves money between accounts, as long as nobody else has touched them meanwhile.
fn transfer(client: &mut CarefulClient, dice: &mut Dice) {
    let (from, to) = (dice.roll(ACCOUNTS), dice.roll(ACCOUNTS));
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

/// Lets the clients end, also if a fault has panicked.
struct Ending<'a>(&'a Recorder);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.round.store(u64::MAX, Ordering::Release);
    }
}

/// Does something to the nodes of a cluster, one after the other, while clients work. After each,
/// the nodes have to find together by themselves.
pub(crate) fn survive(nodes: &mut [NodeProcess], faults: &[Fault], seed: u64) {
    let recorder = Recorder::new(faults.len());
    let mut client = CarefulClient::new(addresses(nodes));
    for account in 0..ACCOUNTS {
        let opened = client.run(&format!("SET {{bank}}{account} {DEPOSIT}"));
        assert_eq!(opened, Tried::Reply("OK".into()));
    }
    std::thread::scope(|scope| {
        let ending = Ending(&recorder);
        let mut clients = Vec::new();
        for seed in 1..=CLIENTS {
            let (recorder, addresses) = (&recorder, addresses(nodes));
            clients.push(scope.spawn(move || recorder.work(addresses, seed)));
        }
        for address in addresses(nodes) {
            let recorder = &recorder;
            clients.push(scope.spawn(move || recorder.watch(address)));
        }
        let mut dice = Dice(seed + other_seed());
        for (name, fault) in faults {
            let begun = std::time::Instant::now();
            std::thread::sleep(Duration::from_millis(300) + dice.millis(700));
            fault(nodes, &mut dice);
            let (struck, terms) = (begun.elapsed(), await_leaders(nodes));
            let terms = terms[0].groups.iter().map(|it| it.term).collect::<Vec<_>>();
            println!("{name}: {struck:.1?}, well after {:.1?}, terms {terms:?}", begun.elapsed());
            recorder.round.fetch_add(1, Ordering::AcqRel);
        }
        drop(ending);
        for client in clients {
            client.join().unwrap();
        }
    });
    let begun = std::time::Instant::now();
    recorder.judge(nodes);
    println!("judged in {:.1?}", begun.elapsed());
}
