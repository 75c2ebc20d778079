//! What goes wrong, and when it is mended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::Vote;
use turmoil::Sim;

use super::dice::Dice;
use super::machines::{Machines, host};
use super::profile::{FaultKind, Profile};

/// How a fault ends.
#[derive(Debug, Clone)]
enum Ending {
    Start(u64),
    Repair(Vec<(u64, u64)>),
    RepairOneWay(Vec<(u64, u64)>),
    Release(Vec<(u64, u64)>),
    /// Voters are not watched any more.
    Unwatch,
}

/// The faults of a run.
pub(super) struct Faults {
    machines: Arc<Machines>,
    dice: Dice,
    profile: Profile,
    next: Duration,
    endings: Vec<(Duration, Ending)>,
    off: BTreeSet<u64>,
    /// A leader that is cut off, while the others elect another one.
    replaced: Option<u64>,
}

impl Faults {
    pub(super) fn new(machines: &Arc<Machines>, seed: u64, profile: Profile) -> Self {
        Self {
            machines: Arc::clone(machines),
            dice: Dice::new(seed, 1),
            profile,
            next: Duration::ZERO,
            endings: Vec::new(),
            off: BTreeSet::new(),
            replaced: None,
        }
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.dice.below(to - from))
    }

    /// Ends what is due, and begins what is next.
    pub(super) fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        let due: Vec<_> = self.endings.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, ending) in due {
            self.end(sim, ending);
        }
        self.watch_votes(sim);
        if now >= self.next {
            let pause = self.profile.fault_pause();
            self.next = now + self.millis(pause / 2, pause * 2);
            let fault = self.profile.fault(&mut self.dice);
            self.begin(sim, fault);
        }
    }

    /// Ends everything.
    pub(super) fn heal(&mut self, sim: &mut Sim<'_>) {
        for (_, ending) in std::mem::take(&mut self.endings) {
            self.end(sim, ending);
        }
    }

    /// Switches machines off for good.
    pub(super) fn switch_removed_off(&mut self, sim: &mut Sim<'_>, ids: impl Iterator<Item = u64>) {
        for id in ids {
            if self.machines.is_removed(id) && self.off.insert(id) {
                self.machines.kill(id);
                self.machines.links.switch(id, true);
                sim.crash(host(id));
            }
        }
    }

    fn end(&mut self, sim: &mut Sim<'_>, ending: Ending) {
        match ending {
            Ending::Start(id) => {
                if !self.machines.is_removed(id) && self.off.remove(&id) {
                    self.machines.links.switch(id, false);
                    sim.bounce(host(id));
                }
            }
            Ending::Repair(pairs) => {
                for (a, b) in pairs {
                    sim.repair(host(a), host(b));
                    self.machines.links.join(a, b);
                }
            }
            Ending::RepairOneWay(pairs) => {
                for (a, b) in pairs {
                    sim.repair_oneway(host(a), host(b));
                    self.machines.links.join(a, b);
                }
            }
            Ending::Release(pairs) => {
                for (a, b) in pairs {
                    sim.release(host(a), host(b));
                }
            }
            Ending::Unwatch => self.replaced = None,
        }
    }

    /// Returns whether something is wrong with the network.
    fn is_network_faulty(&self) -> bool {
        let is_one = |ending: &Ending| !matches!(ending, Ending::Start(_) | Ending::Unwatch);
        self.endings.iter().any(|(_, ending)| is_one(ending))
    }

    fn begin(&mut self, sim: &mut Sim<'_>, fault: FaultKind) {
        let members = self.machines.members();
        let id = self.dice.of(&members);
        let others = members.iter().copied().filter(|other| *other != id);
        let pairs: Vec<_> = others.map(|other| (id, other)).collect();
        let until = sim.elapsed() + self.millis(200, 4000);
        self.machines.note(&format!("{fault:?} of {id} among {members:?}, up to {until:?}"));
        match fault {
            FaultKind::PowerCut | FaultKind::Kill => {
                let until = sim.elapsed() + self.millis(0, 2500);
                self.switch_off(sim, id, until, fault == FaultKind::PowerCut);
            }
            FaultKind::AllOff => {
                let until = sim.elapsed() + self.millis(0, 500);
                for id in members {
                    self.switch_off(sim, id, until, true);
                }
            }
            _ if self.is_network_faulty() => {}
            FaultKind::Cut => self.part(sim, pairs, until),
            FaultKind::Held => {
                for (a, b) in &pairs {
                    sim.hold(host(*a), host(*b));
                }
                self.endings.push((until, Ending::Release(pairs)));
            }
            FaultKind::OneWay => {
                let is_out = self.dice.below(2) == 0;
                let turn = |(a, b)| if is_out { (a, b) } else { (b, a) };
                let pairs: Vec<_> = pairs.into_iter().map(turn).collect();
                for (a, b) in &pairs {
                    sim.partition_oneway(host(*a), host(*b));
                    self.machines.links.part(*a, *b);
                }
                self.endings.push((until, Ending::RepairOneWay(pairs)));
            }
            FaultKind::Sides => {
                let side: Vec<_> = members.iter().map(|_| self.dice.below(2)).collect();
                let all = || members.iter().zip(&side);
                let pairs = all().flat_map(|(a, here)| {
                    all().filter(move |(b, there)| a < *b && here != *there).map(|(b, _)| (*a, *b))
                });
                self.part(sim, pairs.collect(), until);
            }
            FaultKind::Voter => self.replace_leader(sim, &members),
        }
    }

    fn part(&mut self, sim: &mut Sim<'_>, pairs: Vec<(u64, u64)>, until: Duration) {
        for (a, b) in &pairs {
            sim.partition(host(*a), host(*b));
            self.machines.links.part(*a, *b);
        }
        self.endings.push((until, Ending::Repair(pairs)));
    }

    fn switch_off(&mut self, sim: &mut Sim<'_>, id: u64, until: Duration, is_power_cut: bool) {
        if !self.off.insert(id) {
            return;
        }
        // The disk first: what runs is closed in order when the machine ends, and must not be.
        if is_power_cut {
            self.machines.cut_power(id, &mut self.dice);
        } else {
            self.machines.kill(id);
        }
        sim.crash(host(id));
        self.machines.links.switch(id, true);
        self.machines.note(&format!("machine {id} is off until {until:?}, {is_power_cut}"));
        self.endings.push((until, Ending::Start(id)));
    }

    /// Cuts a leader off, and watches how the others vote.
    fn replace_leader(&mut self, sim: &mut Sim<'_>, members: &[u64]) {
        let leads =
            |id: &u64| self.machines.group(*id, 1).is_some_and(|group| group.leader() == Some(*id));
        let Some(leader) = members.iter().copied().find(leads) else { return };
        let others = members.iter().copied().filter(|id| *id != leader);
        let until = sim.elapsed() + Duration::from_secs(3);
        self.part(sim, others.map(|other| (leader, other)).collect(), until);
        self.endings.push((until, Ending::Unwatch));
        self.replaced = Some(leader);
    }

    /// Switches a node off when it has made another one the leader, before it hears of that, and on
    /// again. Then it reaches the leader of before, and not the new one.
    fn watch_votes(&mut self, sim: &mut Sim<'_>) {
        let Some(leader) = self.replaced else { return };
        let vote_of = |id| self.machines.group(id, 1).map(|group| group.metrics().vote);
        let has_elected = |id: u64| {
            let vote = vote_of(id).filter(|vote| id != leader && !vote.committed)?;
            let elected = vote.leader_id.voted_for().filter(|elected| *elected != id)?;
            let is_elected = vote_of(elected)? == Vote::new_committed(vote.leader_id.term, elected);
            is_elected.then_some((id, elected))
        };
        let found = self.machines.members().into_iter().find_map(has_elected);
        if let Some((id, elected)) = found.filter(|(id, _)| self.off.insert(*id)) {
            self.machines.note(&format!("machine {id} is off for a moment"));
            self.replaced = None;
            self.machines.lose_unsynced(id);
            sim.crash(host(id));
            self.part(sim, vec![(id, elected)], sim.elapsed() + Duration::from_millis(1500));
            self.end(sim, Ending::Repair(vec![(leader, id)]));
            self.end(sim, Ending::Start(id));
        }
    }
}
