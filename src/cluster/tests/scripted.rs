//! How an administrator gets on with nodes that fail. Each does what a test says.

#![expect(clippy::disallowed_methods, reason = "backups are on the machine's disk")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

use super::applying::AppliedGroup;
use crate::cluster::admin::ClusterAdmin;
use crate::cluster::consensus::Answered;
use crate::cluster::error::ClusterError;
use crate::cluster::map::{ClusterMap, NodeAddresses};
use crate::cluster::network::messages::{
    KnownCluster, LentFile, PeerAnswer, PeerRequest, Recipient, WriteOutcome,
};
use crate::cluster::network::server::{PeerNode, serve};
use crate::cluster::status::NodeStatus;
use crate::error::Error;

const SECRET: &str = "secret";
const CLUSTER: u128 = 7;

/// What a node does with a request.
enum Deed {
    Answer(PeerAnswer),
    /// Applies what it is to write.
    Apply,
    /// Never answers.
    Hang,
}

type Script = dyn Fn(u64, &PeerRequest) -> Deed + Send + Sync;

struct ScriptedNode {
    script: Box<Script>,
    group: Arc<Mutex<AppliedGroup>>,
}

impl PeerNode for ScriptedNode {
    fn secret(&self) -> &str {
        SECRET
    }

    async fn answer(&self, recipient: Recipient, group: u64, request: PeerRequest) -> PeerAnswer {
        match (self.script)(group, &request) {
            Deed::Answer(answer) => answer,
            Deed::Hang => std::future::pending().await,
            Deed::Apply => {
                let PeerRequest::Write(request) = request else { panic!("{request:?}") };
                // Another node may be at the address by now, of another cluster.
                assert_eq!(recipient.cluster, Some(CLUSTER));
                let answers = self.group.lock().await.propose(1000, vec![request]).await;
                let outcome = match answers.into_iter().next().unwrap() {
                    Answered::Replies(replies) => WriteOutcome::Replies(replies),
                    other => panic!("{other:?}"),
                };
                PeerAnswer::Written(outcome)
            }
        }
    }
}

/// Nodes that run as long as this exists, and what they have.
struct ScriptedNodes {
    runtime: Runtime,
    group: Arc<Mutex<AppliedGroup>>,
}

impl ScriptedNodes {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { runtime, group: Arc::new(Mutex::new(AppliedGroup::new())) }
    }

    /// Starts a node. Returns its address.
    fn start(&self, script: impl Fn(u64, &PeerRequest) -> Deed + Send + Sync + 'static) -> String {
        let node = ScriptedNode { script: Box::new(script), group: Arc::clone(&self.group) };
        let node = Arc::new(node);
        let listener = self.runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        self.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&node)));
            }
        });
        address
    }

    /// Makes a backup of one shard, with one key.
    fn backup(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut group = AppliedGroup::new();
        self.runtime.block_on(group.run(1000, "SET key value"));
        let (files, _) = group.state.copy().unwrap();
        let copy = dir.path().join("group-1");
        std::fs::create_dir(&copy).unwrap();
        for file in files.files().unwrap() {
            std::fs::copy(files.path().join(&file.name), copy.join(&file.name)).unwrap();
        }
        let contents = r#"{"version":1,"shards":1,"indexes":[0,0]}"#;
        std::fs::write(dir.path().join("CLUSTER"), contents).unwrap();
        dir
    }

    fn has_key(&self) -> bool {
        let reply =
            self.runtime.block_on(async { self.group.lock().await.run(1000, "GET key").await });
        reply.contains("value")
    }
}

fn admin(address: &str) -> ClusterAdmin {
    ClusterAdmin::new(address, SECRET).unwrap()
}

/// An administrator that does not wait long for nodes that hang.
fn impatient(address: &str) -> ClusterAdmin {
    let mut admin = admin(address);
    admin.answer_time = Duration::from_millis(300);
    admin
}

/// Returns a cluster of one shard, with nodes at these addresses.
fn known<'a>(addresses: impl IntoIterator<Item = &'a String>) -> Deed {
    let node = |address: &String| NodeAddresses { cluster: address.clone(), ..Default::default() };
    let nodes = (1..).zip(addresses.into_iter().map(node)).collect();
    let map = ClusterMap { nodes, shards: 1, ..ClusterMap::default() };
    Deed::Answer(PeerAnswer::Cluster(KnownCluster { cluster: CLUSTER, map }))
}

fn nobody_leads() -> Deed {
    Deed::Answer(PeerAnswer::AskLeader { leader: None, address: None })
}

fn leads(address: &str) -> Deed {
    Deed::Answer(PeerAnswer::AskLeader { leader: Some(2), address: Some(address.to_owned()) })
}

fn stopped() -> Deed {
    let why = "no space left".to_owned();
    Deed::Answer(PeerAnswer::Written(WriteOutcome::Stopped(why)))
}

/// Restores by a node that names a former leader once, and leads itself after that.
fn restore_past(
    admin: fn(&str) -> ClusterAdmin,
    former: impl Fn(usize) -> Deed + Send + Sync + 'static,
) -> Result<u64, ClusterError> {
    let nodes = ScriptedNodes::new();
    let asked = AtomicUsize::new(0);
    let former = nodes.start(move |_, _| former(asked.fetch_add(1, Ordering::Relaxed)));
    let asked = AtomicUsize::new(0);
    let here = nodes.start(move |_, request| match request {
        PeerRequest::GetMap => known([]),
        _ if asked.fetch_add(1, Ordering::Relaxed) == 0 => leads(&former),
        _ => Deed::Apply,
    });
    let restored = admin(&here).restore(nodes.backup().path());
    assert!(nodes.has_key());
    restored
}

#[test]
fn a_leader_that_has_stopped_is_not_asked_for_ever() {
    let stops = |asked| if asked == 0 { stopped() } else { nobody_leads() };
    assert_eq!(restore_past(admin, stops), Ok(1));
    assert_eq!(restore_past(admin, |_| nobody_leads()), Ok(1));
}

/// It may run later what it was sent, and undo what others have run meanwhile.
#[test]
fn a_leader_that_does_not_answer_is_not_waited_for_but_the_restore_has_to_be_repeated() {
    let failure = restore_past(impatient, |_| Deed::Hang).unwrap_err().to_string();
    assert!(failure.starts_with("1 key was put, but 127.0.0.1:"), "{failure}");
}

/// The key is in doubt then, whatever ends the restore.
#[test]
fn a_restore_that_fails_names_the_nodes_that_did_not_answer() {
    let nodes = ScriptedNodes::new();
    let asked = Arc::new(AtomicBool::new(false));
    let was_asked = Arc::clone(&asked);
    let silent = nodes.start(move |_, _| {
        asked.store(true, Ordering::Relaxed);
        Deed::Hang
    });
    let leader = silent.clone();
    let here = nodes.start(move |_, request| match request {
        PeerRequest::GetMap => known([]),
        _ if !was_asked.load(Ordering::Relaxed) => leads(&leader),
        _ => {
            let why = "too large".to_owned();
            Deed::Answer(PeerAnswer::Written(WriteOutcome::Refused(why)))
        }
    });
    let failure = impatient(&here).restore(nodes.backup().path()).unwrap_err();
    let ClusterError::Refused(why) = failure else { panic!("{failure:?}") };
    let late = why.strip_prefix("group 1: SET of key b\"key\": too large; also, ");
    let (named, _) = late.and_then(|late| late.split_once(" did not answer in time")).unwrap();
    // On a busy machine, the other one may be late too.
    assert!(named.split(", ").any(|address| address == silent), "{why}");
}

/// An entry has the requests of others too.
#[test]
fn a_restore_waits_for_room_that_others_take() {
    let nodes = ScriptedNodes::new();
    let asked = AtomicUsize::new(0);
    let here = nodes.start(move |_, request| match request {
        PeerRequest::GetMap => known([]),
        _ if asked.fetch_add(1, Ordering::Relaxed) < 10 => {
            let why = Error::BatchTooLarge { size: 2, limit: 1 }.to_string();
            Deed::Answer(PeerAnswer::Written(WriteOutcome::Refused(why)))
        }
        _ => Deed::Apply,
    });
    assert_eq!(admin(&here).restore(nodes.backup().path()), Ok(1));
    assert!(nodes.has_key());
}

#[test]
fn a_restore_goes_on_when_its_own_node_does_not() {
    let nodes = ScriptedNodes::new();
    let other = nodes.start(|_, _| Deed::Apply);
    for is_hanging in [false, true] {
        let addresses = [other.clone()];
        let here = nodes.start(move |_, request| match request {
            PeerRequest::GetMap => known(&addresses),
            _ if is_hanging => Deed::Hang,
            _ => stopped(),
        });
        let admin = if is_hanging { impatient(&here) } else { admin(&here) };
        let restored = admin.restore(nodes.backup().path());
        assert_eq!(restored.is_err(), is_hanging, "{restored:?}");
        assert!(nodes.has_key());
    }
}

#[test]
fn a_restore_says_which_group_failed_and_why() {
    let nodes = ScriptedNodes::new();
    let restored = |deed: fn() -> Deed| {
        let here = nodes.start(move |_, request| match request {
            PeerRequest::GetMap => known([]),
            _ => deed(),
        });
        let mut admin = admin(&here);
        admin.patience = Duration::ZERO;
        (admin.restore(nodes.backup().path()).unwrap_err(), here)
    };
    let (failure, here) = restored(stopped);
    let ClusterError::Failed(why) = failure else { panic!("{failure:?}") };
    assert!(why.starts_with(&format!("group 1: {here}: ")), "{why}");
    assert!(why.ends_with("no space left"), "{why}");

    let (failure, _) = restored(nobody_leads);
    assert!(failure.to_string().contains(": no node leads"), "{failure}");

    let (failure, _) = restored(|| {
        let why = "too large".to_owned();
        Deed::Answer(PeerAnswer::Written(WriteOutcome::Refused(why)))
    });
    let ClusterError::Refused(why) = failure else { panic!("{failure:?}") };
    assert_eq!(why, "group 1: SET of key b\"key\": too large");
}

/// Says that the cluster has one shard.
fn status() -> PeerAnswer {
    PeerAnswer::Status(NodeStatus {
        id: 1,
        version: String::new(),
        shards: Some(1),
        nodes: Vec::new(),
        groups: Vec::new(),
    })
}

/// A node that knows no leader at first, lends one file after that, and hangs when it is asked for
/// its first piece for the first time.
#[test]
fn a_copy_and_its_pieces_are_asked_for_again() {
    let (nodes, dir) = (ScriptedNodes::new(), tempfile::tempdir().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, waits) = (Arc::clone(&asked), AtomicUsize::new(0));
    let here = nodes.start(move |_, request| {
        Deed::Answer(match request {
            PeerRequest::Status => status(),
            // An election is under way.
            PeerRequest::LendCopy => {
                match waits.fetch_add(1, Ordering::Relaxed) {
                    0 => return nobody_leads(),
                    1 => return Deed::Answer(PeerAnswer::Busy),
                    2 => return Deed::Answer(PeerAnswer::Failed("it begins".to_owned())),
                    _ => {}
                }
                let file = LentFile { name: "MANIFEST".to_owned(), size: 6 };
                PeerAnswer::CopyLent { copy: 5, index: 7, files: vec![file] }
            }
            PeerRequest::GetPiece { copy: 5, offset, .. } => {
                if count.fetch_add(1, Ordering::Relaxed) == 0 {
                    return Deed::Hang;
                }
                let piece = if *offset == 0 { &b"MANI"[..] } else { b"FE" };
                PeerAnswer::Piece(bytes::Bytes::from_static(piece))
            }
            PeerRequest::ReturnCopy { copy: 5 } => PeerAnswer::Done,
            other => panic!("{other:?}"),
        })
    });
    let copy = dir.path().join("copy");
    impatient(&here).backup(&copy).unwrap();
    assert!(asked.load(Ordering::Relaxed) >= 5);
    assert_eq!(std::fs::read(copy.join("group-1/MANIFEST")).unwrap(), b"MANIFE");
}

#[test]
fn a_backup_says_which_group_failed_and_why() {
    let nodes = ScriptedNodes::new();
    let failed = |deed: fn() -> Deed| {
        let dir = tempfile::tempdir().unwrap();
        let here = nodes.start(move |group, request| match request {
            PeerRequest::Status => Deed::Answer(status()),
            PeerRequest::LendCopy if group == 0 => {
                Deed::Answer(PeerAnswer::CopyLent { copy: 1, index: 0, files: Vec::new() })
            }
            PeerRequest::LendCopy => deed(),
            _ => Deed::Answer(PeerAnswer::Done),
        });
        let mut admin = admin(&here);
        admin.patience = Duration::ZERO;
        admin.backup(dir.path().join("copy")).unwrap_err().to_string()
    };
    let failure = failed(nobody_leads);
    assert!(failure.starts_with("group 1: no node leads"), "{failure}");
    let failure = failed(|| Deed::Answer(PeerAnswer::Failed("no space left".to_owned())));
    assert_eq!(failure, "group 1: no space left");
    let failure = failed(|| Deed::Answer(PeerAnswer::Busy));
    assert_eq!(failure, format!("group 1: {}", ClusterError::Busy));
}
