//! Followers of the changes, which move from node to node while leaders are stopped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcask::Operation;
use bitcask::cluster::{ClusterError, ClusterPosition, GroupRole};
use serde_json::Value as Json;

use crate::feed::{EventStream, SentEvent, text};
use crate::recorder::times;
use crate::support::{PATIENCE, Place, Router, RunningNode};

/// Number of clients that write.
const WRITERS: usize = 4;
/// Number of events after which the follower goes to another node.
const MOVES_AFTER: usize = 40;
/// Number of times that a node is stopped, unless there is much time.
const STOPS: usize = 3;

/// What a follower has made of the changes.
#[derive(Default)]
struct Copy {
    position: Option<String>,
    contents: BTreeMap<String, String>,
    /// Number of entries, and how often it went to another node.
    entries: usize,
    moves: usize,
    /// What came of an entry that is not complete yet.
    begun: Vec<(String, Option<String>)>,
}

impl Copy {
    fn receive(&mut self, event: SentEvent) {
        let Some(id) = event.add_to(&mut self.begun) else { return };
        self.position = Some(id);
        self.entries += usize::from(!self.begun.is_empty());
        for (key, value) in std::mem::take(&mut self.begun) {
            if key.ends_with("}.n") {
                // Each entry adds one, so none came twice, and none is missing.
                let before = self.contents.get(&key).map_or(0, |it| it.parse::<u64>().unwrap());
                assert_eq!(value, Some((before + 1).to_string()), "{key}");
            }
            match value {
                Some(value) => drop(self.contents.insert(key, value)),
                None => assert!(self.contents.remove(&key).is_some(), "{key} was deleted twice"),
            }
        }
        for writer in 0..WRITERS {
            let of = |name: &str| self.contents.get(&format!("{{w{writer}}}.{name}"));
            assert_eq!(of("a"), of("b"), "an entry was received in part");
        }
    }

    /// Follows one node after the other, until it has all.
    fn follow(&mut self, addresses: &[Mutex<String>], is_complete: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE * u32::try_from(4 * times()).unwrap();
        for at in (0..addresses.len()).cycle() {
            assert!(Instant::now() < until, "the rest does not come: {:?}", self.position);
            self.begun.clear();
            let address = addresses[at].lock().unwrap_or_else(PoisonError::into_inner).clone();
            let since = self.position.as_deref().unwrap_or("start");
            let Ok(begun) = EventStream::begin(&address, &format!("?since={since}")) else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            let mut stream = match begun {
                Ok(stream) => stream,
                // The node is about to stop, or was started just now.
                Err((503, _)) => {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
                Err(refusal) => panic!("{since}: {refusal:?}"),
            };
            self.moves += 1;
            for _ in 0..MOVES_AFTER {
                match stream.next() {
                    Ok(event) if event.name == "error" => break,
                    Ok(event) => self.receive(event),
                    Err(_) => break,
                }
                if is_complete(self) {
                    return;
                }
            }
        }
    }
}

/// Writes what may be written twice, until it is written.
fn certainly(router: &mut Router, line: &str) {
    let until = Instant::now() + PATIENCE;
    while router.run(line) != "OK" {
        assert!(Instant::now() < until, "{line:?} is not written");
    }
}

/// Writes until it is told to stop.
fn write(mut router: Router, writer: usize, is_over: &AtomicBool) {
    for number in 0.. {
        if is_over.load(Ordering::Acquire) {
            return;
        }
        let key = format!("{{w{writer}}}");
        // Whether it has taken effect may be unknown.
        router.run(&format!("INCR {key}.n"));
        certainly(&mut router, &format!("MSET {key}.a {number} {key}.b {number}"));
        router.run(&format!("SET {key}.{} {number}", number % 7));
        router.run(&format!("DEL {key}.{}", (number + 3) % 7));
    }
}

/// Returns all that a node tells of its history.
fn told_by(node: &RunningNode, since: &ClusterPosition) -> Vec<String> {
    let mut changes = node.node().changes(since).unwrap();
    let mut told = Vec::new();
    while let Some(change) = changes.try_recv().unwrap() {
        let value = match &change.operation {
            Operation::Put { value, .. } => format!("{value:?}"),
            _ => "deleted".to_owned(),
        };
        let (key, time) = (String::from_utf8_lossy(&change.key).into_owned(), change.time);
        told.push(format!("{} {key} {value} {time:?} {}", change.shard, change.entry_continues));
    }
    // Shards take turns as they are found, and each has its own order.
    told.sort_by_key(|line| line.split(' ').next().unwrap().to_owned());
    told
}

/// Three nodes, of which any may be stopped.
struct Nodes<'a> {
    places: &'a [Place],
    running: Vec<Option<RunningNode>>,
    /// Where they serve HTTP.
    addresses: &'a [Mutex<String>],
}

impl Nodes<'_> {
    fn start(&mut self, at: usize) {
        let node = self.places[at].start();
        let address = node.node().http("127.0.0.1:0", None).unwrap().to_string();
        *self.addresses[at].lock().unwrap() = address;
        self.running[at] = Some(node);
    }

    fn found(&mut self) {
        (0..self.places.len()).for_each(|at| self.start(at));
        let nodes: Vec<_> = self.running.iter().flatten().collect();
        nodes[0].node().init(3).unwrap();
        for node in &nodes[1..] {
            node.node().join(&self.places[0].cluster).unwrap();
        }
    }

    /// Stops the node that leads the most shards, has the others elect, and starts it again.
    fn disturb(&mut self) {
        let led = |node: &Option<RunningNode>| {
            let groups = node.as_ref().unwrap().node().status().groups;
            groups.into_iter().filter(|group| group.role == GroupRole::Leader).count()
        };
        let at = (0..self.places.len()).max_by_key(|at| led(&self.running[*at])).unwrap();
        drop(self.running[at].take());
        let mut router = self.router();
        for writer in 0..WRITERS {
            certainly(&mut router, &format!("SET {{w{writer}}}.stopped {at}"));
        }
        self.start(at);
    }

    fn router(&self) -> Router {
        Router::new(&self.places.iter().collect::<Vec<_>>())
    }

    /// Returns what all keys hold.
    fn contents(&self) -> BTreeMap<String, String> {
        let mut router = self.router();
        certainly(&mut router, "SET end 1");
        let mut contents = BTreeMap::from([("end".to_owned(), "1".to_owned())]);
        for writer in 0..WRITERS {
            for name in ["n", "a", "b", "stopped", "0", "1", "2", "3", "4", "5", "6"] {
                let key = format!("{{w{writer}}}.{name}");
                let value = router.run(&format!("GET {key}"));
                if value != "nil" {
                    contents.insert(key, value.trim_matches('\'').to_owned());
                }
            }
        }
        contents
    }
}

#[test]
fn a_follower_that_moves_between_nodes_gets_each_entry_once() {
    let dir = tempfile::tempdir().unwrap();
    let places: Vec<Place> = (1..=3).map(|id| Place::new(id, dir.path())).collect();
    let addresses: Vec<Mutex<String>> = places.iter().map(|_| Mutex::default()).collect();
    let running = places.iter().map(|_| None).collect();
    let mut nodes = Nodes { places: &places, running, addresses: &addresses };
    nodes.found();
    let (is_over, last) = (AtomicBool::new(false), Mutex::new(None));
    let copy = std::thread::scope(|scope| {
        let write = |writer| {
            let (router, is_over) = (nodes.router(), &is_over);
            scope.spawn(move || write(router, writer, is_over))
        };
        let writers: Vec<_> = (0..WRITERS).map(write).collect();
        let follower = scope.spawn(|| {
            let mut copy = Copy::default();
            copy.follow(&addresses, |copy| last.lock().unwrap().as_ref() == Some(&copy.contents));
            copy
        });
        for _ in 0..STOPS * times() {
            std::thread::sleep(Duration::from_millis(500));
            nodes.disturb();
        }
        is_over.store(true, Ordering::Release);
        for writer in writers {
            writer.join().unwrap();
        }
        *last.lock().unwrap() = Some(nodes.contents());
        follower.join().unwrap()
    });
    assert!(copy.entries > 100 && copy.moves > STOPS * times(), "{} {}", copy.entries, copy.moves);

    // All nodes tell the same history, once they have all of it.
    let end: ClusterPosition = copy.position.unwrap().parse().unwrap();
    let has_all = |node: &RunningNode| {
        let position = node.node().position().unwrap();
        (1..=3).all(|shard| position.index(shard) >= end.index(shard))
    };
    let nodes: Vec<_> = nodes.running.into_iter().flatten().collect();
    while !nodes.iter().all(has_all) {
        std::thread::yield_now();
    }
    let told: Vec<_> = nodes.iter().map(|node| told_by(node, &ClusterPosition::START)).collect();
    assert!(told[0].len() > 200, "{}", told[0].len());
    assert!(told.iter().all(|each| *each == told[0]));
    assert!(nodes.iter().all(|node| told_by(node, &end).is_empty()));

    refuses(&nodes[0], &addresses[0].lock().unwrap(), &end);
}

/// What a node says to positions that it cannot serve.
fn refuses(node: &RunningNode, address: &str, end: &ClusterPosition) {
    let refusal = |query: &str| {
        let begun = EventStream::begin(address, query).unwrap();
        let Err((status, body)) = begun else { panic!("{query}: it is accepted") };
        (status, serde_json::from_str::<Json>(&body).unwrap())
    };
    let (status, body) = refusal("?since=00000000000000ab-1:5");
    assert_eq!((status, text(&body, "code")), (400, Some("invalid_position")));
    assert_eq!(refusal("?shard=4").0, 400);
    assert_eq!(refusal("?since=5").0, 400);
    // The term of an entry is that of no leader.
    let text_of = end.to_string();
    let (before, term) = text_of.rsplit_once('@').unwrap();
    let other = format!("{before}@{}", term.parse::<u64>().unwrap() + 1000);
    let (status, body) = refusal(&format!("?since={other}"));
    assert_eq!((status, text(&body, "code")), (410, Some("history_gone")));
    assert!(text(&body, "oldest").unwrap().parse::<ClusterPosition>().is_ok());
    let gone = node.node().changes(&other.parse().unwrap()).unwrap_err();
    assert!(matches!(gone, ClusterError::HistoryGone { .. }), "{gone}");
    // The node waits for what it does not have, and says so.
    let (before, at) = before.rsplit_once(':').unwrap();
    let later = format!("{before}:{}@{term}", at.parse::<u64>().unwrap() + 1000);
    let mut stream = EventStream::begin(address, &format!("?since={later}")).unwrap().ok().unwrap();
    let event = stream.next().unwrap();
    assert_eq!((&*event.name, event.id.as_deref()), ("position", Some(&*later)));
    assert_eq!(event.data["waiting"], Json::from(vec![3]));
    // One shard, from now on.
    let mut stream = EventStream::begin(address, "?shard=2").unwrap().ok().unwrap();
    let id = stream.next().unwrap().id.unwrap();
    assert_eq!(id.matches(':').count(), 1, "{id}");
    // A limited number of streams, until others end.
    let mut streams = Vec::new();
    let refused = loop {
        match EventStream::begin(address, "").unwrap() {
            Ok(stream) => streams.push(stream),
            Err((status, _)) => break status,
        }
        assert!(streams.len() <= 64);
    };
    assert_eq!(refused, 503);
    drop((stream, streams));
    let until = Instant::now() + PATIENCE;
    while EventStream::begin(address, "").unwrap().is_err() {
        assert!(Instant::now() < until, "streams that have ended still count");
        std::thread::sleep(Duration::from_millis(20));
    }
}
