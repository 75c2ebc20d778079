//! How nodes join, leave and announce themselves when something goes wrong on the way.

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use openraft::ChangeMembers;
use tokio::io::DuplexStream;
use tokio::runtime::Builder;

use crate::cluster::error::ClusterError;
use crate::cluster::map::{MAP_GROUP, NodeAddresses};
use crate::cluster::network::PeerTransport;
use crate::cluster::network::messages::{PeerAnswer, PeerRequest, Recipient};
use crate::cluster::network::server::{PeerNode, serve};
use crate::cluster::node::Node;
use crate::cluster::options::ClusterOptions;

/// How long to wait for what certainly comes.
const PATIENCE: Duration = Duration::from_secs(60);
/// An address at which nobody listens.
const GONE: &str = "127.0.0.1:9";
/// Addresses of others that know nothing of the cluster.
const REFUSES: &str = "127.0.0.1:10";
const FAILS: &str = "127.0.0.1:11";
/// The address of a node that leaves two questions unanswered.
const STALLS: &str = "127.0.0.1:12";

/// The way of the only node to itself.
#[derive(Clone, Default)]
struct Loopback {
    node: Arc<Mutex<Option<LoneNode>>>,
    /// Number of changes of the map that go wrong next. The last of them is refused.
    failing: Arc<AtomicUsize>,
    /// How often the node that stalls was asked.
    asked: Arc<AtomicUsize>,
}

type LoneNode = Arc<Node<Loopback>>;

impl PeerTransport for Loopback {
    type Stream = DuplexStream;

    async fn connect(&self, address: &str) -> io::Result<DuplexStream> {
        if address == GONE {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (here, there) = tokio::io::duplex(1 << 16);
        if [REFUSES, FAILS, STALLS].contains(&address) {
            let other = Other { address: address.to_owned(), asked: Arc::clone(&self.asked) };
            tokio::spawn(serve(there, Arc::new(other)));
        } else {
            self.clone().answer_at(there);
        }
        Ok(here)
    }
}

/// Something else than the node.
struct Other {
    address: String,
    asked: Arc<AtomicUsize>,
}

impl PeerNode for Other {
    fn secret(&self) -> &'static str {
        "secret"
    }

    async fn answer(&self, _: Recipient, _: u64, request: PeerRequest) -> PeerAnswer {
        match &*self.address {
            REFUSES => return PeerAnswer::Refused("that is another port".to_owned()),
            STALLS if matches!(request, PeerRequest::GetMap) => {}
            _ => return PeerAnswer::Failed("no space left".to_owned()),
        }
        if self.asked.fetch_add(1, Ordering::Relaxed) < 2 {
            std::future::pending::<()>().await;
        }
        PeerAnswer::Done
    }
}

impl PeerNode for Loopback {
    fn secret(&self) -> &'static str {
        "secret"
    }

    async fn answer(&self, recipient: Recipient, group: u64, request: PeerRequest) -> PeerAnswer {
        let is_put = matches!(request, PeerRequest::PutNode { .. });
        let failing = self.failing.load(Ordering::Relaxed);
        if is_put && failing > 0 {
            self.failing.store(failing - 1, Ordering::Relaxed);
            return match failing {
                1 => PeerAnswer::Refused("that is another port".to_owned()),
                _ => PeerAnswer::Failed("no space left".to_owned()),
            };
        }
        let node = self.node.lock().unwrap().clone();
        match node {
            Some(node) => node.answer(recipient, group, request).await,
            None => PeerAnswer::Failed("the node begins".to_owned()),
        }
    }
}

impl Loopback {
    fn answer_at(self, stream: DuplexStream) {
        tokio::spawn(serve(stream, Arc::new(self)));
    }

    async fn start(&self, dir: &Path, redis: &str) -> LoneNode {
        let options = ClusterOptions::new(1, dir, "secret").listen("127.0.0.1:1");
        let options = options.redis_address(redis).timing(20, 100);
        let node = Node::start(options, self.clone()).await.unwrap();
        *self.node.lock().unwrap() = Some(Arc::clone(&node));
        node
    }

    async fn stop(&self, node: LoneNode) {
        node.stop().await;
        self.node.lock().unwrap().take();
    }
}

/// Waits until something is so.
async fn until(is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "it does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A runtime that ends frees the files of its node.
fn within<R>(work: impl Future<Output = R>) -> R {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_node_announces_itself_again_if_the_leader_has_failed_or_another_has_answered() {
    let (dir, loopback) = (tempfile::tempdir().unwrap(), Loopback::default());
    within(async {
        let node = loopback.start(dir.path(), "127.0.0.1:2").await;
        node.init(1).await.unwrap();
        loopback.stop(node).await;
    });
    loopback.failing.store(2, Ordering::Relaxed);
    within(async {
        let node = loopback.start(dir.path(), "127.0.0.1:3").await;
        until(|| node.map().nodes.get(&1).is_some_and(|it| it.redis == "127.0.0.1:3")).await;
        loopback.stop(node).await;
    });
    assert_eq!(loopback.failing.load(Ordering::Relaxed), 0);
}

/// Has the map name a second node, which need not exist.
async fn put_second<T: PeerTransport>(node: &Arc<Node<T>>, address: &str) {
    let addresses = NodeAddresses { cluster: address.to_owned(), ..Default::default() };
    let put = || PeerRequest::PutNode { id: 2, addresses: addresses.clone() };
    node.at_leader(MAP_GROUP, put).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_voter_is_not_removed_and_one_that_has_not_joined_is() {
    let (dir, loopback) = (tempfile::tempdir().unwrap(), Loopback::default());
    let node = loopback.start(dir.path(), "127.0.0.1:2").await;
    node.init(1).await.unwrap();
    put_second(&node, "127.0.0.1:4").await;
    let refusal = node.remove(1).await.unwrap_err().to_string();
    assert!(refusal.starts_with("group 0 would have no voter without node 1"), "{refusal}");
    node.remove(2).await.unwrap();
    assert!(node.map().nodes.keys().eq([&1]));
    let refusal = node.remove(1).await.unwrap_err().to_string();
    assert_eq!(refusal, "the last node of a cluster cannot be removed");
    loopback.stop(node).await;
}

/// The second node does not answer. So this one may have been replaced, and need not know what
/// others have marked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_confirms_does_not_judge_a_removal() {
    let (dir, loopback) = (tempfile::tempdir().unwrap(), Loopback::default());
    let node = loopback.start(dir.path(), "127.0.0.1:2").await;
    node.init(1).await.unwrap();
    put_second(&node, GONE).await;
    let group = node.group(MAP_GROUP).unwrap();
    group.add_learner(2, GONE.to_owned()).await.unwrap();
    let raft = group.raft.clone();
    let adding = tokio::spawn(async move {
        let change = ChangeMembers::AddVoterIds([2].into());
        drop(raft.change_membership(change, false).await);
    });
    let voters = || group.metrics().membership_config.membership().voter_ids().count();
    until(|| voters() == 2).await;
    let failure = node.begin_removal(1).await.unwrap_err();
    assert!(matches!(failure, ClusterError::NotLeader { .. }), "{failure:?}");
    adding.abort();
    loopback.stop(node).await;
}

/// The seed of a join may end while the node joins.
#[test]
fn a_node_looks_for_the_leader_beyond_its_seed() {
    let (dir, loopback) = (tempfile::tempdir().unwrap(), Loopback::default());
    within(async {
        let node = loopback.start(dir.path(), "127.0.0.1:2").await;
        node.init(1).await.unwrap();
        put_second(&node, "127.0.0.1:4").await;
        until(|| node.group(1).unwrap().leader() == Some(1)).await;
        let likely = |turn| node.likely_leader(1, Some(GONE), turn);
        let leader = ("127.0.0.1:1".to_owned(), true);
        assert_eq!(likely(0), leader);
        assert_eq!(likely(1), (GONE.to_owned(), false));
        assert_eq!(likely(2), leader);
        assert_eq!(likely(3), ("127.0.0.1:4".to_owned(), false));
        assert_eq!(likely(4), leader);
        loopback.stop(node).await;
    });
    // It knows no leader when it begins to ask.
    for seed in [GONE, REFUSES, FAILS] {
        within(async {
            let node = loopback.start(dir.path(), "127.0.0.1:2").await;
            let ask = || PeerRequest::ReadIndex;
            let asked = node.at_leader_from(1, Some(seed), ask, PATIENCE).await;
            assert!(matches!(asked, Ok(PeerAnswer::ReadIndex(_))), "{seed} {asked:?}");
            loopback.stop(node).await;
        });
    }
}

/// A node that knows of no other one takes a refusal as final, whatever it is that answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_hears_what_its_seed_says() {
    let (dir, loopback) = (tempfile::tempdir().unwrap(), Loopback::default());
    let node = loopback.start(dir.path(), "127.0.0.1:2").await;
    let ask = || PeerRequest::ReadIndex;
    let refused = node.at_leader_from(1, Some(REFUSES), ask, PATIENCE).await.unwrap_err();
    assert_eq!(refused, ClusterError::Refused("that is another port".to_owned()));
    let failed = node.at_leader_from(1, Some(FAILS), ask, PATIENCE).await.unwrap_err();
    assert_eq!(failed, ClusterError::Failed("no space left".to_owned()));
    loopback.stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_added_hears_why() {
    let (dir, loopback) = (tempfile::tempdir().unwrap(), Loopback::default());
    let node = loopback.start(dir.path(), "127.0.0.1:2").await;
    node.init(1).await.unwrap();
    let add = || PeerRequest::AddMember { id: 2, address: GONE.to_owned() };
    // On a busy machine, the answer may come later than this one waits for it.
    let asked = node.at_leader_from(1, None, add, PATIENCE).await;
    let failure = asked.unwrap_err().to_string();
    let expected = format!("node 1 cannot reach node 2 at {GONE}: ");
    assert!(failure.starts_with(&expected), "{failure}");
    let map = node.group(MAP_GROUP).unwrap();
    map.stop().await;
    until(|| map.check_running().is_err()).await;
    let failure = node.at_leader(1, add).await.unwrap_err().to_string();
    assert!(failure.starts_with("group 0: this node does not take part: "), "{failure}");
    loopback.stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stalls_for_a_moment_can_be_reached() {
    let (dir, loopback) = (tempfile::tempdir().unwrap(), Loopback::default());
    let node = loopback.start(dir.path(), "127.0.0.1:2").await;
    node.init(1).await.unwrap();
    let group = node.group(1).unwrap();
    until(|| group.leader() == Some(1)).await;
    group.add_learner(2, STALLS.to_owned()).await.unwrap();
    let now = tokio::time::Instant::now();
    let added = group.add_voter(&node, 2, now).await.unwrap_err();
    assert_eq!(added, ClusterError::Unknown);
    assert_eq!(loopback.asked.load(Ordering::Relaxed), 3);
    loopback.stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_says_which_group_nobody_leads() {
    let (dir, loopback) = (tempfile::tempdir().unwrap(), Loopback::default());
    let node = loopback.start(dir.path(), "127.0.0.1:2").await;
    node.init(1).await.unwrap();
    put_second(&node, GONE).await;
    let group = node.group(1).unwrap();
    group.stop().await;
    until(|| group.check_running().is_err()).await;
    let failure = node.begin_removal(2).await.unwrap_err();
    let ClusterError::Failed(why) = failure else { panic!("{failure:?}") };
    assert!(why.starts_with("group 1: no node that leads it answers"), "{why}");
    assert!(!node.map().removed.contains(&2));
    loopback.stop(node).await;
}

/// Its connection may end in the middle, and then nobody waits for the answer. This one cannot be
/// reached either, so it gets no vote, which would cost the group its majority.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_added_though_nobody_waits_for_it() {
    let (dir, loopback) = (tempfile::tempdir().unwrap(), Loopback::default());
    let node = loopback.start(dir.path(), "127.0.0.1:2").await;
    node.init(1).await.unwrap();
    let group = node.group(1).unwrap();
    let learners = || group.metrics().membership_config.membership().learner_ids().count();
    // A group that has only just elected its leader, or a machine that is busy, may refuse a call.
    // Each one is given up as soon as it has begun.
    let ends = Instant::now() + PATIENCE;
    while learners() == 0 {
        assert!(Instant::now() < ends, "nobody adds the node");
        let mut adding = Box::pin(node.add_member(&group, 2, "127.0.0.1:4".to_owned()));
        assert!(poll_fn(|context| Poll::Ready(adding.as_mut().poll(context).is_pending())).await);
        drop(adding);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // It cannot be elected, so the group would do without a leader for nothing.
    let refusal = group.yield_lead(&node, 2).await.unwrap_err().to_string();
    assert!(refusal.starts_with("node 2 does not vote"), "{refusal}");
    while group.read_index().await.is_err() {
        assert!(Instant::now() < ends, "the group has lost its majority");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    loopback.stop(node).await;
}
