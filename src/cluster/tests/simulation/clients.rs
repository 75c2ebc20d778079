//! Clients, and an administrator, of a cluster in which things go wrong.

use std::sync::Arc;
use std::time::Duration;

use super::dice::Dice;
use super::front::{Ask, Asked, Told, Way};
use super::history::Seen;
use super::machines::{CALM_TIME, Machines, SECRET, Stage, client_address, peer_address};
use super::profile::Profile;
use crate::cluster::map::MAP_GROUP;
use crate::cluster::network::PeerNetwork;
use crate::cluster::network::messages::{PeerAnswer, PeerRequest};

/// Number of lists. Clients meet at them.
pub(super) const LISTS: u64 = 3;
/// How often a client tries what was not done.
const TRIES: usize = 30;

/// A client, which follows redirects.
pub(super) struct ListClient {
    machines: Arc<Machines>,
    dice: Dice,
    /// To where it asks next.
    way: Way,
    /// Whether it goes nowhere but where it is sent.
    only_follows: bool,
}

impl ListClient {
    pub(super) fn new(machines: &Arc<Machines>, seed: u64, number: u64) -> Self {
        let (machines, dice) = (Arc::clone(machines), Dice::new(seed, 100 + number));
        let way = Way::new(machines.tcp(0), client_address(1));
        Self { machines, dice, way, only_follows: false }
    }

    fn go_anywhere(&mut self) {
        if !self.only_follows {
            let members = self.machines.members();
            let address = client_address(self.dice.of(&members));
            self.way.go(address);
        }
    }

    /// Asks until something has come of it.
    async fn ask(&mut self, ask: &Ask) -> Seen {
        for _ in 0..TRIES {
            // Some wait for whatever a node says in the end.
            let patience = if self.dice.below(4) == 0 { 12_000 } else { 1500 };
            let asked = self.way.ask(ask, Duration::from_millis(patience)).await;
            let pause = match asked {
                Asked::Told(Told::At(at)) => return Seen::At(at),
                Asked::Told(Told::Found(list)) => return Seen::Found(list),
                Asked::Told(Told::Moved(address)) => {
                    self.way.go(address);
                    continue;
                }
                Asked::Told(Told::Failed(why)) if !why.starts_with("TRYAGAIN") => {
                    return Seen::Nothing;
                }
                Asked::NoAnswer => {
                    self.go_anywhere();
                    return Seen::Nothing;
                }
                Asked::Told(_) => 50,
                Asked::NotSent => 20,
            };
            tokio::time::sleep(Duration::from_millis(pause + self.dice.below(50))).await;
            if self.dice.below(3) == 0 {
                self.go_anywhere();
            }
        }
        self.go_anywhere();
        Seen::NotDone
    }

    async fn append(&mut self, key: usize) -> Seen {
        let (number, mark) = self.machines.history(|history| history.append(key));
        let seen = self.ask(&Ask::Append { key: self.machines.list_name(key), mark }).await;
        self.machines.history(|history| history.end(number, seen.clone()));
        seen
    }

    async fn read(&mut self, key: usize, is_stale: bool) -> Seen {
        let number = self.machines.history(|history| history.read(key, is_stale));
        let seen = self.ask(&Ask::Read { key: self.machines.list_name(key), is_stale }).await;
        self.machines.history(|history| history.end(number, seen.clone()));
        seen
    }

    /// Appends and reads as long as things go wrong.
    pub(super) async fn work(mut self) {
        while self.machines.stage() < Stage::Calm {
            let key = usize::try_from(self.dice.below(LISTS)).unwrap();
            match self.dice.below(10) {
                0..=4 => drop(self.append(key).await),
                5 => {
                    self.go_anywhere();
                    drop(self.read(key, true).await);
                }
                6 => {
                    // Whoever has led may still take itself for the leader.
                    self.go_anywhere();
                    drop(self.read(key, false).await);
                }
                _ => drop(self.read(key, false).await),
            }
            tokio::time::sleep(Duration::from_millis(self.dice.below(120))).await;
        }
    }

    /// Appends and reads, going from a node to wherever it is sent.
    pub(super) async fn follow_from(mut self, id: u64) -> Result<(), String> {
        self.only_follows = true;
        let done = async {
            for key in 0..usize::try_from(LISTS).unwrap() {
                loop {
                    self.way.go(client_address(id));
                    let appended = self.append(key).await;
                    let read = self.read(key, false).await;
                    if let (Seen::At(_), Seen::Found(_)) = (appended, read) {
                        break;
                    }
                }
            }
        };
        let done = tokio::time::timeout(CALM_TIME, done).await;
        done.map_err(|_| format!("a client of node {id} does not get to the leader"))
    }
}

/// Changes the members, hands leads over, and has snapshots built.
pub(super) struct Administrator {
    machines: Arc<Machines>,
    dice: Dice,
    profile: Profile,
    /// A node that is about to join, or to leave.
    joining: Option<u64>,
    leaving: Option<u64>,
}

impl Administrator {
    pub(super) fn new(machines: &Arc<Machines>, seed: u64, profile: Profile) -> Self {
        let (machines, dice) = (Arc::clone(machines), Dice::new(seed, 200));
        Self { machines, dice, profile, joining: None, leaving: None }
    }

    async fn ask(&self, id: u64, group: u64, request: PeerRequest) -> Result<PeerAnswer, String> {
        let (secret, idle) = (Arc::from(SECRET), Arc::default());
        let transport = self.machines.tcp(0);
        let (cluster, progress, age) = (None, Arc::default(), Arc::default());
        let network = PeerNetwork { transport, group, cluster, secret, idle, progress, age };
        let mut connection = network.connection(&peer_address(id));
        let time = if self.machines.stage() == Stage::Chaos { 8 } else { 40 };
        self.machines.note(&format!("node {id} is asked for {request:?} in group {group}"));
        let answered = match connection.ask(&request, Duration::from_secs(time)).await {
            Ok(PeerAnswer::Failed(why) | PeerAnswer::Refused(why)) => Err(why),
            Ok(PeerAnswer::Busy) => Err("it is busy".to_owned()),
            Ok(PeerAnswer::AskLeader { .. }) => Err("it does not lead".to_owned()),
            Ok(answer) => Ok(answer),
            Err(error) => Err(error.to_string()),
        };
        self.machines.note(&format!("node {id} answers {answered:?}"));
        answered
    }

    /// Founds a cluster of some nodes.
    pub(super) async fn found(&self, size: u64) -> Result<(), String> {
        self.ask(1, MAP_GROUP, PeerRequest::Init { shards: self.machines.shards }).await?;
        self.machines.joined(1);
        for id in 2..=size {
            self.ask(id, MAP_GROUP, PeerRequest::Join { address: peer_address(1) }).await?;
            self.machines.joined(id);
        }
        Ok(())
    }

    /// Does something now and then, as long as things go wrong.
    pub(super) async fn work(&mut self) -> Result<(), String> {
        while self.machines.stage() < Stage::Calm {
            let members = self.machines.members();
            let groups = u64::from(self.machines.shards) + 1;
            let (id, group) = (self.dice.of(&members), self.dice.below(groups));
            // What fails is tried again, or it does not matter.
            match self.profile.task(&mut self.dice) {
                Task::Snapshot => drop(self.ask(id, group, PeerRequest::BuildSnapshot).await),
                Task::Transfer => drop(self.ask(id, group, PeerRequest::Lead).await),
                Task::Join => {
                    self.joining = self.joining.or_else(|| self.machines.spare());
                    drop(self.join(id).await);
                }
                Task::Leave => {
                    if self.leaving.is_none() && self.joining.is_none() && members.len() > 3 {
                        self.leaving = Some(id);
                    }
                    drop(self.leave().await);
                }
            }
            let pause = self.profile.task_pause();
            tokio::time::sleep(Duration::from_millis(pause + self.dice.below(pause))).await;
        }
        self.finish().await
    }

    /// Completes what was begun.
    async fn finish(&mut self) -> Result<(), String> {
        for last in [false, false, true] {
            let member = self.machines.members().into_iter().find(|id| Some(*id) != self.leaving);
            let joined = self.join(member.unwrap_or(1)).await;
            let left = self.leave().await;
            let failed = joined.err().map(|why| format!("{:?} cannot join: {why}", self.joining));
            let failed = failed.or_else(|| {
                left.err().map(|why| format!("{:?} cannot leave: {why}", self.leaving))
            });
            match failed {
                Some(why) if last => return Err(why),
                _ => {}
            }
        }
        Ok(())
    }

    async fn join(&mut self, member: u64) -> Result<(), String> {
        let Some(id) = self.joining else { return Ok(()) };
        let address = peer_address(member);
        self.ask(id, MAP_GROUP, PeerRequest::Join { address }).await?;
        self.machines.joined(id);
        self.joining = None;
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), String> {
        let Some(id) = self.leaving else { return Ok(()) };
        let others: Vec<_> =
            self.machines.members().into_iter().filter(|other| *other != id).collect();
        let at = self.dice.of(&others);
        self.ask(at, MAP_GROUP, PeerRequest::Leave { id }).await?;
        self.machines.left(id);
        self.leaving = None;
        Ok(())
    }
}

/// What an administrator does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Task {
    Snapshot,
    Transfer,
    Join,
    Leave,
}
