//! Whole clusters in one thread: what nodes run, on a network and disks that do not exist, in a
//! time that passes when nothing is left to do. A seed decides what goes wrong.
//!
//! - `machines` has the nodes and what they show, `faults` what goes wrong with them, and `profile`
//!   what goes wrong most. `network` is how they reach each other. `clients` has those that use and
//!   administer the cluster, and `front` their way in.
//! - `history` judges what clients saw, `end` what is left when everything is mended, and `panics`
//!   hears those of tasks.
//! - `mistakes` shows that each of a number of mistakes is found.

mod clients;
mod dice;
mod end;
mod faults;
mod front;
mod history;
mod machines;
mod mistakes;
mod network;
mod panics;
mod profile;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clients::{Administrator, ListClient};
use faults::Faults;
use machines::{Machines, Stage, host};
use profile::Profile;
use turmoil::Builder;

/// How long things go wrong.
const CHAOS_TIME: Duration = Duration::from_secs(10);
/// Number of clients.
const CLIENTS: u64 = 4;
/// What lines of the story of a run begin with.
const SAYS: &str = "simulation: ";
/// Runs of each profile.
const RUNS: u64 = 2;

/// Runs a cluster until everything is mended, and judges it. Returns the number of operations that
/// clients had answers to.
fn run(seed: u64, profile: Profile) -> Result<usize, String> {
    let machines = Machines::new(seed, profile);
    panics::listen();
    let result = run_on(&machines, seed, profile);
    let result = match panics::heard() {
        None => result,
        Some(panic) => Err(format!("{}; {panic}", result.err().unwrap_or_default())),
    };
    if only_seed().is_some() {
        machines.story().iter().for_each(|line| println!("{SAYS}{line}"));
    }
    result.map_err(|why| format!("{why}{}\n{}", machines.leaderless(), machines.shown()))
}

fn run_on(machines: &Arc<Machines>, seed: u64, profile: Profile) -> Result<usize, String> {
    crate::cluster::tests::chance::seed(seed);
    let (size, count) = profile.sizes(seed);
    let mut sim = Builder::new()
        .rng_seed(seed)
        .epoch(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        .tick_duration(Duration::from_millis(5))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .simulation_duration(Duration::from_secs(240))
        .tcp_capacity(4096)
        .build();
    for id in 1..=count {
        let machines = Arc::clone(machines);
        sim.host(host(id), move || Arc::clone(&machines).run(id));
    }
    sim.client("admin", administer(Arc::clone(machines), seed, profile, size));
    sim.client("clients", work(Arc::clone(machines), seed));
    let mut faults = Faults::new(machines, seed, profile);
    let mut calm_at = None;
    loop {
        let is_over = sim.step().map_err(|why| why.to_string())?;
        machines.look(sim.elapsed());
        if let Some(why) = machines.failure() {
            return Err(why);
        }
        if machines.stage() == Stage::Chaos {
            let calm_at = *calm_at.get_or_insert(sim.elapsed() + CHAOS_TIME);
            if sim.elapsed() < calm_at {
                faults.step(&mut sim);
            } else {
                faults.heal(&mut sim);
                machines.enter(Stage::Calm);
            }
        }
        faults.switch_removed_off(&mut sim, 1..=count);
        if is_over {
            break;
        }
    }
    end::settle(&mut sim, machines)?;
    end::judge(machines)
}

async fn administer(
    machines: Arc<Machines>,
    seed: u64,
    profile: Profile,
    size: u64,
) -> turmoil::Result {
    let mut administrator = Administrator::new(&machines, seed, profile);
    administrator.found(size).await?;
    machines.enter(Stage::Chaos);
    administrator.work().await?;
    machines.enter(Stage::Settled);
    Ok(())
}

async fn work(machines: Arc<Machines>, seed: u64) -> turmoil::Result {
    let reached = async |stage| {
        while machines.stage() < stage {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    reached(Stage::Chaos).await;
    let clients = (0..CLIENTS).map(|number| ListClient::new(&machines, seed, number).work());
    for client in clients.map(tokio::task::spawn_local).collect::<Vec<_>>() {
        client.await?;
    }
    reached(Stage::Settled).await;
    for id in machines.members() {
        ListClient::new(&machines, seed, CLIENTS + id).follow_from(id).await?;
    }
    Ok(())
}

/// Returns how many times as many runs are made as usual.
fn long() -> u64 {
    std::env::var("BITCASK_LONG").map_or(1, |times| times.parse().unwrap_or(100))
}

/// Returns the seed that the environment names, if it does. Its run tells its story.
fn only_seed() -> Option<u64> {
    std::env::var("BITCASK_SEED").ok().map(|seed| seed.parse().unwrap())
}

fn all_runs_pass(profile: Profile) {
    let runs = RUNS * long();
    let seeds = only_seed().map_or(0..runs, |seed| seed..seed + 1);
    let mut answered = 0;
    for seed in seeds {
        match run(seed, profile) {
            Ok(count) => answered += count,
            Err(why) => panic!("seed {seed} of {profile:?}: {why}"),
        }
    }
    println!("{profile:?}: {answered} operations with an answer");
}

/// In a process of its own: the order in which tokio drops the tasks of a machine that crashes
/// depends on how many tasks there were before in the process.
#[test]
fn a_seed_repeats_a_run() {
    let story = || {
        let exe = std::env::current_exe().unwrap();
        let name = "cluster::tests::simulation::clusters_keep_their_promises_whatever_goes_wrong";
        let mut alone = std::process::Command::new(exe);
        alone.args(["--exact", name, "--nocapture"]).env("BITCASK_SEED", "1");
        let output = alone.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().filter(|line| line.starts_with(SAYS)).map(str::to_owned).collect::<Vec<_>>()
    };
    let (once, again) = (story(), story());
    assert!(once.len() > 100, "{once:#?}");
    let same = once.iter().zip(&again).take_while(|(once, again)| once == again).count();
    let from = same.saturating_sub(5);
    assert!(once == again, "{:#?}\n{:#?}", once.get(from..same + 5), again.get(from..same + 5));
}

#[test]
fn clusters_keep_their_promises_whatever_goes_wrong() {
    all_runs_pass(Profile::Mixed);
}

#[test]
fn clusters_keep_their_promises_while_the_power_fails() {
    all_runs_pass(Profile::Power);
}

#[test]
fn clusters_keep_their_promises_while_the_network_fails() {
    all_runs_pass(Profile::Network);
}

#[test]
fn clusters_keep_their_promises_while_members_come_and_go() {
    all_runs_pass(Profile::Members);
}

#[test]
fn clusters_keep_their_promises_while_voters_fail() {
    all_runs_pass(Profile::Votes);
}
