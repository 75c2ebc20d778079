//! What one node does with the entries of a group.

use openraft::storage::RaftStateMachine as _;
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId};

use crate::cluster::apply::Applier;
use crate::cluster::consensus::{Answered, Consensus, Proposal, Request};
use crate::options::Options;
use crate::raft::StateMachine;
use crate::resp::CommandsRequest;
use crate::store::Bitcask;

/// A group that applies what it is given.
pub(super) struct AppliedGroup {
    pub(super) state: StateMachine<Consensus, Applier>,
    next: u64,
    _dir: tempfile::TempDir,
}

impl AppliedGroup {
    pub(super) fn new() -> Self {
        Self::with(Options::new())
    }

    /// Returns one whose store has options of its own.
    fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateMachine::open(dir.path(), options, Applier::new()).unwrap();
        Self { state, next: 0, _dir: dir }
    }

    /// Applies requests as one entry, at a time in seconds.
    async fn entry(&mut self, time: u64, requests: Vec<Vec<String>>) -> Vec<Answered> {
        let args = |line: &String| line.split(' ').map(|arg| arg.to_owned().into()).collect();
        let commands = |lines: Vec<String>| {
            Request::Commands(CommandsRequest::new(lines.iter().map(args).collect(), Vec::new()))
        };
        self.propose(time, requests.into_iter().map(commands).collect()).await
    }

    /// Applies requests as one entry, whatever they are.
    pub(super) async fn propose(&mut self, time: u64, requests: Vec<Request>) -> Vec<Answered> {
        let proposal = Proposal { time: time * 1_000_000, seed: self.next, requests };
        let log_id = LogId::new(CommittedLeaderId::new(1, 1), self.next);
        self.next += 1;
        let entry = Entry { log_id, payload: EntryPayload::Normal(proposal) };
        self.state.apply([entry]).await.unwrap().remove(0).0
    }

    /// Applies one command, and returns its reply as text.
    pub(super) async fn run(&mut self, time: u64, command: &str) -> String {
        texts(&self.entry(time, vec![vec![command.to_owned()]]).await[0])[0].clone()
    }

    /// Applies a command behind that of another client, in one entry. Returns both replies as text.
    async fn with_another(&mut self, command: &str) -> Vec<String> {
        let entry = vec![vec!["SET a 1".to_owned()], vec![command.to_owned()]];
        self.entry(1000, entry).await.iter().flat_map(texts).collect()
    }
}

pub(super) fn texts(answered: &Answered) -> Vec<String> {
    match answered {
        Answered::Replies(Some(replies)) => replies.iter().map(|it| format!("{it:?}")).collect(),
        Answered::Refused(reason) => vec![format!("refused: {reason}")],
        other => vec![format!("{other:?}")],
    }
}

#[tokio::test]
async fn a_command_that_puts_too_much_for_an_entry_changes_nothing() {
    let mut group = AppliedGroup::new();
    let value = "v".repeat(20 << 10);
    for field in 0..6 {
        let reply = group.run(1000, &format!("HSET h f{field} {value}")).await;
        assert!(reply.contains("Integer(1)"), "{reply}");
    }
    // It puts each field, and the last ones are too much.
    let reply = group.run(1000, "EXPIRE h 100").await;
    assert!(reply.starts_with("refused: "), "{reply}");
    assert!(group.run(1000, "TTL h").await.contains("Integer(-1)"));
    assert!(group.run(2000, "HLEN h").await.contains("Integer(6)"));
    for field in 0..6 {
        let length = group.run(2000, &format!("HSTRLEN h f{field}")).await;
        assert!(length.contains("Integer(20480)"), "{field}: {length}");
    }

    // Nor is anything lost of what others have in the same entry, or of what a command removes
    // before it puts.
    group.run(2000, "SET b old").await;
    group.run(2000, &format!("SET a {}", "a".repeat(50 << 10))).await;
    let large = format!("SET c {}", "c".repeat(60 << 10));
    let answers = group.entry(2000, vec![vec![large], vec!["RENAME a b".to_owned()]]).await;
    assert!(answers.iter().all(|it| matches!(it, Answered::Refused(_))), "{answers:?}");
    assert!(group.run(2000, "STRLEN b").await.contains("Integer(3)"));
    assert!(group.run(2000, "EXISTS a c").await.contains("Integer(1)"));
}

/// A copy of a hash was refused where its values had to be decompressed, and refused the entry as a
/// whole where they lay in a mapped segment. So the nodes of a group differed from then on.
#[cfg(feature = "lz4")]
#[tokio::test]
async fn how_a_node_stores_values_has_no_say_in_what_it_copies() {
    let compressing = Options::new().compression(crate::options::Compression::lz4());
    let mut seen = Vec::new();
    for mut group in [AppliedGroup::new(), AppliedGroup::with(compressing)] {
        let value = "v".repeat(80 << 10);
        // More than what replies may hold, which is more than what an entry may put.
        for field in 0..15 {
            let reply = group.run(1000, &format!("HSET big f{field} {value}")).await;
            assert!(reply.contains("Integer(1)"), "{reply}");
        }
        group.run(1000, &format!("HSET small f {value}")).await;
        group.run(1000, "SET x 1").await;
        let mut view = Vec::new();
        for copy in ["COPY big x", "COPY big y", "COPY big x REPLACE", "COPY small z"] {
            group.run(1000, "DEL a").await;
            view.extend(group.with_another(copy).await);
            view.push(group.run(1000, "GET a").await);
            view.push(group.run(1000, "EXISTS x y z").await);
        }
        view.push(group.run(1000, "GET x").await);
        // Others in its entry may leave a copy no room, which refuses all of them.
        let large = vec![format!("SET a {}", "a".repeat(20 << 10))];
        let entry = vec![large, vec!["COPY small w".to_owned()]];
        view.extend(group.entry(1000, entry).await.iter().flat_map(texts));
        view.push(group.run(1000, "EXISTS w").await);
        seen.push(view);
    }
    assert_eq!(seen[0], seen[1]);
    let copied = |reply: usize, expected: &str| {
        let view = &seen[0][4 * reply..][..4];
        assert!(view[1].contains(expected) && !view[2].contains("Null"), "{view:?}");
    };
    copied(0, "Integer(0)");
    copied(1, "too large to be copied");
    copied(2, "too large to be copied");
    copied(3, "Integer(1)");
    assert!(seen[0][15].contains("Integer(2)") && !seen[0][16].contains("Null"), "{:?}", seen[0]);
    let all_refused = seen[0][17..19].iter().all(|it| it.starts_with("refused: "));
    assert!(all_refused && seen[0][19].contains("Integer(0)"), "{:?}", seen[0]);
}

/// Such a copy read all fields, and then refused the entry as a whole.
#[tokio::test]
async fn a_copy_of_many_fields_without_values_is_refused_before_it_is_written() {
    let mut group = AppliedGroup::new();
    for (key, parts) in [("fits", 2), ("many", 4)] {
        for part in 0..parts {
            let fields = (0..500).map(|field| format!(" {part}-{field} "));
            let fields: String = fields.collect();
            let reply = group.run(1000, &format!("HSET {key}{fields}")).await;
            assert!(reply.contains("Integer(500)"), "{reply}");
        }
    }
    let replies = group.with_another("COPY fits x").await;
    assert!(replies[1].contains("Integer(1)"), "{replies:?}");
    assert!(group.run(1000, "HLEN x").await.contains("Integer(1000)"));
    group.run(1000, "DEL a").await;
    let replies = group.with_another("COPY many x REPLACE").await;
    assert!(replies[1].contains("too large to be copied"), "{replies:?}");
    assert!(group.run(1000, "EXISTS a").await.contains("Integer(1)"));
    assert!(group.run(1000, "HLEN x").await.contains("Integer(1000)"));
}

#[test]
fn a_map_that_cannot_be_decoded_is_damage_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let open = || StateMachine::open(dir.path(), Options::new(), Applier::new());
    drop(open().unwrap());
    let db = Bitcask::open(dir.path().join("state-1"), Options::new()).unwrap();
    db.put("\0raft.map", "").unwrap();
    db.close().unwrap();
    let error = open().unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains("state-1"), "{error}");
}

#[tokio::test]
async fn replies_that_are_too_large_hide_nothing_that_was_done() {
    let mut group = AppliedGroup::new();
    group.run(1000, &format!("SET k {}", "k".repeat(80 << 10))).await;
    // DUMP makes its reply, and so takes memory.
    let mut greedy = vec!["DUMP k".to_owned(); 20];
    greedy.extend(["INCR mine".to_owned(), "GETSET k 1".to_owned(), "DUMP k".to_owned()]);
    group.run(1000, "SET short value").await;
    let others = vec!["INCR counter".to_owned(), "GETDEL short".to_owned()];
    let answers = group.entry(1000, vec![greedy, others]).await;
    let replies = texts(&answers[0]);
    let refused = replies.iter().filter(|it| it.contains("the replies are too large")).count();
    assert!(refused > 1 && !replies[0].contains("too large"), "{refused}");
    assert!(replies[20].contains("Integer(1)"), "{}", replies[20]);
    assert!(replies[22].contains("the replies are too large"), "{}", replies[22]);
    let others = texts(&answers[1]);
    assert!(others[0].contains("Integer(1)"));
    assert!(!others[1].contains("too large"), "{}", others[1]);
    assert!(group.run(1000, "STRLEN k").await.contains("Integer(1)"));
    assert!(group.run(1000, "INCR counter").await.contains("Integer(2)"));
}
