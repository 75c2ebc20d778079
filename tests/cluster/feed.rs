//! Clients of `GET /v1/changes`, and one that copies a cluster while things happen to its nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::recorder::{ACCOUNTS, BANK, DEPOSIT, Dice, NOTES};
use crate::support::PATIENCE;

/// An event of the stream.
#[derive(Debug, Default)]
pub(crate) struct SentEvent {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Json,
}

/// The stream of one node.
pub(crate) struct EventStream(BufReader<TcpStream>);

impl EventStream {
    /// Begins a stream, or returns the status and the body of the refusal.
    pub(crate) fn begin(address: &str, query: &str) -> io::Result<Result<Self, (u16, String)>> {
        Self::resume(address, query, None, PATIENCE)
    }

    /// Does so behind an event, for a client that waits so long for each line.
    fn resume(
        address: &str,
        query: &str,
        last: Option<&str>,
        patience: Duration,
    ) -> io::Result<Result<Self, (u16, String)>> {
        let to: SocketAddr = address.parse().unwrap();
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        // In this version of the protocol, the body has no frames.
        write!(stream, "GET /v1/changes{query} HTTP/1.0\r\n{last}\r\n")?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.ok_or(io::ErrorKind::UnexpectedEof)?;
        while line.trim() != "" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if status == 200 {
            return Ok(Ok(Self(reader)));
        }
        let mut body = String::new();
        reader.read_to_string(&mut body)?;
        Ok(Err((status, body)))
    }

    pub(crate) fn next(&mut self) -> io::Result<SentEvent> {
        let mut event = SentEvent::default();
        loop {
            let mut line = String::new();
            // A node that is killed leaves half a line.
            if self.0.read_line(&mut line)? == 0 || !line.ends_with('\n') {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end_matches('\n');
            match line.split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("id", id)) => event.id = Some(id.to_owned()),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                _ if line.is_empty() => return Ok(event),
                _ => panic!("{line:?}"),
            }
        }
    }
}

impl SentEvent {
    /// Adds the event to the changes of an entry that has begun. Returns the position behind the
    /// entry if this is its last event.
    pub(crate) fn add_to(self, begun: &mut Vec<(String, Option<String>)>) -> Option<String> {
        let field = |name| text(&self.data, name).unwrap().to_owned();
        match &*self.name {
            "put" => begun.push((field("key"), Some(field("value")))),
            "delete" => begun.push((field("key"), None)),
            "position" => assert!(begun.is_empty(), "a position within an entry"),
            _ => panic!("{self:?}"),
        }
        let continues = self.data.get("batch_continues").is_some();
        assert_eq!(self.id.is_none(), continues, "{self:?}");
        self.id
    }
}

pub(crate) fn text<'a>(data: &'a Json, name: &str) -> Option<&'a str> {
    data.get(name).and_then(Json::as_str)
}

/// How long the copy waits for a node, before it goes to another one.
const NODE_PATIENCE: Duration = Duration::from_secs(1);
/// Number of keys that are written in the end. They are enough for each shard to have some.
const ENDS: usize = 16;

/// Returns the keys that are written when nothing else is any more.
pub(crate) fn ends() -> impl Iterator<Item = String> {
    (0..ENDS).map(|number| format!("end:{number}"))
}

/// A copy of a cluster, made of its changes alone.
#[derive(Debug, Default)]
pub(crate) struct FeedCopy {
    position: Option<String>,
    pub(crate) contents: BTreeMap<String, String>,
    /// All values that each key has had, in their order.
    pub(crate) values: BTreeMap<String, Vec<String>>,
    /// Number of entries that have changed accounts of the bank, once all were there.
    pub(crate) transfers: u64,
    /// Number of streams that have brought something new, and the nodes that they were from.
    streams: usize,
    nodes: BTreeSet<String>,
    /// What came of an entry that is not complete yet.
    begun: Vec<(String, Option<String>)>,
}

impl FeedCopy {
    /// Follows one node after the other until all that was written in the end has come.
    pub(crate) fn follow(
        &mut self,
        addresses: &[String],
        mut dice: Dice,
        is_over: impl Fn() -> bool,
    ) {
        let (mut until, mut at) = (None, 0);
        loop {
            if is_over() {
                let until = *until.get_or_insert_with(|| Instant::now() + PATIENCE);
                assert!(Instant::now() < until, "the rest does not come: {:?}", self.position);
            }
            at += 1 + usize::try_from(dice.roll(addresses.len() as u64 - 1)).unwrap();
            let address = &addresses[at % addresses.len()];
            self.begun.clear();
            let last = self.position.as_deref();
            match EventStream::resume(address, "?since=start", last, NODE_PATIENCE) {
                Ok(Ok(stream)) => {
                    if self.receive_some(stream, 1 + dice.roll(20), address) {
                        return;
                    }
                }
                // The node is halted, is no member, is about to end, or was started just now.
                Err(_) | Ok(Err((503, _))) => std::thread::sleep(Duration::from_millis(20)),
                Ok(Err(refusal)) => panic!("{last:?} at {address}: {refusal:?}"),
            }
        }
    }

    /// Receives some events of a node. Returns whether they were the last.
    fn receive_some(&mut self, mut stream: EventStream, count: u64, node: &str) -> bool {
        let before = self.position.clone();
        for _ in 0..count {
            match stream.next() {
                Ok(event) if event.name == "error" => break,
                Ok(event) => self.receive(event),
                Err(_) => break,
            }
            if ends().all(|key| self.contents.contains_key(&key)) {
                return true;
            }
        }
        if before != self.position {
            self.streams += 1;
            self.nodes.insert(node.to_owned());
        }
        false
    }

    fn receive(&mut self, event: SentEvent) {
        let Some(id) = event.add_to(&mut self.begun) else { return };
        self.position = Some(id);
        let is_transfer = self.balances().len() as u64 == ACCOUNTS
            && self.begun.iter().any(|(key, _)| key.starts_with(BANK));
        for (key, value) in std::mem::take(&mut self.begun) {
            let Some(value) = value else {
                assert!(self.contents.remove(&key).is_some(), "{key} was deleted twice");
                continue;
            };
            self.values.entry(key.clone()).or_default().push(value.clone());
            self.contents.insert(key, value);
        }
        if is_transfer {
            self.transfers += 1;
            let balances = self.balances();
            let sum = balances.iter().sum::<i64>();
            assert_eq!(sum, i64::try_from(ACCOUNTS * DEPOSIT).unwrap(), "{balances:?}");
        }
    }

    /// Returns what the accounts of the bank hold.
    pub(crate) fn balances(&self) -> Vec<i64> {
        let is_account = |key: &str| key.starts_with(BANK) && !key.starts_with(NOTES);
        let accounts = self.contents.iter().filter(|(key, _)| is_account(key));
        accounts.map(|(_, value)| value.parse().unwrap()).collect()
    }

    /// Asserts that it went from node to node.
    pub(crate) fn judge_ways(&self, rounds: usize) {
        println!("{} streams of {} nodes", self.streams, self.nodes.len());
        assert!(self.nodes.len() > 1 && self.streams > rounds, "{} {:?}", self.streams, self.nodes);
    }
}
