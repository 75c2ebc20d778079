//! Clients that work while something is done to the nodes, and what they must have seen: each key
//! behaves like one register, a bank of transfers keeps its sum, no acknowledged write is lost, and
//! one that follows the changes gets each of them once, in their order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use stateright::semantics::register::{RegisterOp, RegisterRet};

use crate::feed::{FeedCopy, ends};
use crate::processes::{
    CarefulClient, NodeProcess, Tried, addresses, await_equal, await_leaders, stale_client,
};
use crate::register::{Event, is_register, judge_order};
use crate::support::patiently;

/// Number of clients at the same time.
const CLIENTS: u64 = 3;
/// Time between two operations of a client. It bounds the histories, which are judged by trying.
const PAUSE: Duration = Duration::from_millis(100);
/// Number of accounts of the bank, and what each has at first.
pub(crate) const ACCOUNTS: u64 = 4;
pub(crate) const DEPOSIT: u64 = 100;
/// What the keys of all accounts begin with.
pub(crate) const BANK: &str = "{bank}";
/// What the keys begin with that say of each transfer what it has moved.
pub(crate) const NOTES: &str = "{bank}:";

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
    /// The notes of all transfers whose outcome is known, and whether they were made.
    transfers: Mutex<Vec<(String, bool)>>,
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
            transfers: Mutex::default(),
        }
    }

    fn note(&self, round: u64, event: Event) {
        let history = &self.histories[usize::try_from(round).unwrap()];
        history.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    fn thread(&self) -> u64 {
        self.next_thread.fetch_add(1, Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.round.load(Ordering::Acquire) >= self.histories.len() as u64
    }

    /// Waits until clients have written and read from now on, so that the cluster serves again.
    fn await_service(&self, round: usize) {
        let events = || self.histories[round].lock().unwrap_or_else(PoisonError::into_inner);
        let since = events().len();
        patiently(|| {
            let events = events();
            let is_there = |is_wanted: fn(&RegisterRet<u64>) -> bool| {
                let mut since = events.iter().skip(since);
                since.any(|it| matches!(it, Event::Ended(_, ret) if is_wanted(ret)))
            };
            let is_written = is_there(|ret| *ret == RegisterRet::WriteOk);
            let is_read = is_there(|ret| matches!(ret, RegisterRet::ReadOk(_)));
            if is_written && is_read { Ok(()) } else { Err("nothing is served") }
        });
    }

    /// Works until all faults are over.
    fn work(&self, addresses: Vec<String>, seed: u64) {
        let (mut client, mut dice) = (CarefulClient::new(addresses), Dice(seed));
        // The first one waits for what a halted node will say. The others go on elsewhere, and
        // change what that node still has.
        client.patience = Duration::from_secs(if seed == 1 { 20 } else { 1 });
        let (mut acknowledged, mut transfers, mut number) = (Vec::new(), Vec::new(), 0);
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
            let note = format!("{NOTES}{seed}:{number}");
            if let Some(is_made) = transfer(&mut client, &mut dice, &note) {
                transfers.push((note, is_made));
            }
            std::thread::sleep(PAUSE);
        }
        let mut all = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(acknowledged);
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner).extend(transfers);
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
    fn judge(&self, nodes: &[NodeProcess], copy: &FeedCopy) {
        for (round, history) in self.histories.iter().enumerate() {
            let history = history.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(is_register(&history), "key:{round} is no register: {history:?}");
            let values = copy.values.get(&format!("key:{round}")).map_or(&[][..], |it| it);
            let values: Vec<_> = values.iter().map(|value| value.parse().unwrap()).collect();
            judge_order(&history, &values);
        }
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!acknowledged.is_empty());
        for (key, value) in &*acknowledged {
            let told = copy.values.get(key).map_or(&[][..], |it| it);
            assert_eq!(told, [value.to_string()], "{key} was not told once");
        }
        let is_once = |(key, told): (&String, &Vec<_>)| !key.starts_with("ack:") || told.len() == 1;
        assert!(copy.values.iter().all(is_once), "told twice: {:?}", copy.values);
        self.judge_bank(copy);
        copy.judge_ways(self.histories.len());
        await_equal(nodes);
        for node in nodes.iter().filter(|node| node.pid().is_some()) {
            let mut client = stale_client(node);
            for (key, value) in &copy.contents {
                let found = client.run(&format!("GET {key}")).unwrap();
                assert_eq!(found, format!("'{value}'"), "{key} of node {}", node.id);
            }
            let size = client.run("DBSIZE").unwrap();
            assert_eq!(size, format!("({})", copy.contents.len()), "node {}", node.id);
        }
    }

    /// Judges the transfers: those that were acknowledged were made once, those that were refused
    /// were not made, and the accounts hold what all of them have moved.
    fn judge_bank(&self, copy: &FeedCopy) {
        let transfers = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        for (note, is_made) in &*transfers {
            let told = copy.values.get(note).map_or(0, Vec::len);
            assert_eq!(told, usize::from(*is_made), "how often the feed has told {note}");
        }
        let made = transfers.iter().filter(|(_, is_made)| *is_made).count() as u64;
        println!("{made} transfers, told in {} entries", copy.transfers);
        assert!(made.min(copy.transfers) >= self.histories.len() as u64);
        let mut balances = BTreeMap::new();
        for account in 0..ACCOUNTS {
            balances.insert(account, i64::try_from(DEPOSIT).unwrap());
        }
        for (_, moved) in copy.contents.iter().filter(|(key, _)| key.starts_with(NOTES)) {
            let moved: Vec<u64> = moved.split('-').map(|it| it.parse().unwrap()).collect();
            let amount = i64::try_from(moved[2]).unwrap();
            *balances.get_mut(&moved[0]).unwrap() -= amount;
            *balances.get_mut(&moved[1]).unwrap() += amount;
        }
        let expected: Vec<_> = balances.into_values().collect();
        assert_eq!(copy.balances(), expected, "the accounts hold what no transfers have moved");
    }
}

/// Returns the number that a key holds. At first, it is 0.
fn number_of(reply: &str) -> u64 {
    if reply == "nil" { 0 } else { reply.trim_matches('\'').parse().unwrap() }
}

/// Moves money between accounts, unless somebody else has touched them meanwhile, and notes what it
/// has moved. Returns whether it was made, if that is known.
fn transfer(client: &mut CarefulClient, dice: &mut Dice, note: &str) -> Option<bool> {
    let (from, to) = (dice.roll(ACCOUNTS), dice.roll(ACCOUNTS));
    let amount = dice.roll(10);
    for line in [
        &*format!("WATCH {BANK}{from} {BANK}{to}"),
        "MULTI",
        &*format!("DECRBY {BANK}{from} {amount}"),
        &*format!("INCRBY {BANK}{to} {amount}"),
        &*format!("SET {note} {from}-{to}-{amount}"),
        "EXEC",
    ] {
        match client.run_here(line) {
            // The replies of all commands, or none of them.
            Some(Tried::Reply(reply)) if line == "EXEC" && !reply.starts_with("(error)") => {
                return Some(reply.starts_with('['));
            }
            Some(Tried::Reply(reply)) if !reply.starts_with("(error)") => {}
            _ => break,
        }
    }
    client.reconnect();
    None
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
        let opened = client.run(&format!("SET {BANK}{account} {DEPOSIT}"));
        assert_eq!(opened, Tried::Reply("OK".into()));
    }
    let copy = std::thread::scope(|scope| {
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
        let (recorder, mut dice) = (&recorder, Dice(seed + other_seed()));
        let http: Vec<_> = nodes.iter().map(|node| node.http.clone()).collect();
        let feed = scope.spawn(move || {
            let mut copy = FeedCopy::default();
            copy.follow(&http, Dice(seed), || recorder.is_over());
            copy
        });
        for (round, (name, fault)) in faults.iter().enumerate() {
            let begun = std::time::Instant::now();
            std::thread::sleep(Duration::from_millis(300) + dice.millis(700));
            fault(nodes, &mut dice);
            let (struck, terms) = (begun.elapsed(), await_leaders(nodes));
            let terms = terms[0].groups.iter().map(|it| it.term).collect::<Vec<_>>();
            println!("{name}: {struck:.1?}, well after {:.1?}, terms {terms:?}", begun.elapsed());
            recorder.await_service(round);
            recorder.round.fetch_add(1, Ordering::AcqRel);
        }
        drop(ending);
        for client in clients {
            client.join().unwrap();
        }
        for key in ends() {
            while client.run(&format!("SET {key} 1")) != Tried::Reply("OK".into()) {}
        }
        feed.join().unwrap()
    });
    let begun = std::time::Instant::now();
    recorder.judge(nodes, &copy);
    println!("judged in {:.1?}", begun.elapsed());
}
