//! The commands: one file for each, or for a few that belong together.

pub(crate) mod backup;
pub(crate) mod batch;
pub(crate) mod bench;
pub(crate) mod clear;
#[cfg(feature = "cluster")]
pub(crate) mod cluster;
pub(crate) mod compact;
pub(crate) mod config;
pub(crate) mod delete;
pub(crate) mod dump;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod health;
pub(crate) mod import;
pub(crate) mod incr;
pub(crate) mod init;
pub(crate) mod links;
pub(crate) mod list;
pub(crate) mod merge;
pub(crate) mod mode;
pub(crate) mod put;
#[cfg(feature = "server")]
pub(crate) mod redis_port;
pub(crate) mod repair;
pub(crate) mod segments;
#[cfg(feature = "server")]
pub(crate) mod server;
pub(crate) mod shell;
pub(crate) mod stats;
#[cfg(feature = "tui")]
pub(crate) mod top;
pub(crate) mod ttl;
pub(crate) mod verify;
pub(crate) mod watch;

#[cfg(feature = "server")]
pub(crate) use server::serve_as_before;

use crate::args::Command;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::program::Program;

/// Runs a command.
pub(crate) fn run(command: Command, program: &mut Program) -> Result<Exit, Failure> {
    // What prints no results works whatever the settings say, and `config` corrects them.
    let is_free = matches!(
        command,
        Command::Config(_) | Command::Completions(_) | Command::Man(_) | Command::Links(_)
    );
    if !is_free {
        program.check_output()?;
    }
    if program.global().server.is_some() && !command.is_for_servers() {
        let what = "this command works only on the directory of a store, not on a server";
        let advice = "leave out --server, and run it where the store is";
        return Err(Failure::usage(what, advice));
    }
    match command {
        Command::Put(args) => put::run(&args, program),
        Command::Get(args) => get::run(&args, program),
        Command::Delete(args) => delete::run(&args, program),
        Command::Exists(args) => get::exists(&args, program),
        Command::List(args) => list::list(&args, program),
        Command::Scan(args) => list::scan(&args, program),
        Command::Range(args) => list::range(&args, program),
        Command::Batch(args) => batch::run(&args, program),
        Command::Ttl(args) => ttl::ttl(&args, program),
        Command::Expire(args) => ttl::expire(&args, program),
        Command::Persist(args) => ttl::persist(&args, program),
        Command::Incr(args) => incr::run(&args, program),
        Command::Clear(args) => clear::run(&args, program),
        Command::Init(args) => init::run(&args, program),
        Command::Stats(args) => stats::run(&args, program),
        Command::Segments(args) => segments::run(&args, program),
        Command::Merge(args) => merge::run(&args, program),
        Command::Compact(args) => compact::run(&args, program),
        Command::Verify(args) => verify::run(&args, program),
        Command::Repair(args) => repair::run(&args, program),
        Command::Backup(args) => backup::backup(&args, program),
        Command::Restore(args) => backup::restore(&args, program),
        Command::Export(args) => export::run(&args, program),
        Command::Import(args) => import::run(&args, program),
        Command::Dump(args) => dump::run(&args, program),
        Command::Watch(args) => watch::run(&args, program),
        #[cfg(feature = "tui")]
        Command::Top(args) => top::run(&args, program),
        Command::Bench(args) => bench::run(&args, program),
        Command::Mode(args) => mode::run(&args, program),
        #[cfg(feature = "server")]
        Command::Server(args) => server::run(args, program),
        #[cfg(feature = "cluster")]
        Command::Cluster(args) => cluster::run(args, program),
        Command::Health(args) => health::health(&args, program),
        Command::Ping(args) => health::ping(&args, program),
        Command::Config(args) => config::run(args, program),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
        Command::Version(args) => shell::version(&args, program),
        Command::Links(args) => links::run(&args, program),
    }
}

/// Says that this program serves no store.
#[cfg(not(feature = "server"))]
pub(crate) fn serve_as_before(
    _dir: &std::path::Path,
    _host: &str,
    _port: u16,
    _program: &mut Program,
) -> Result<Exit, Failure> {
    let what = "this program was built without the feature `server`";
    Err(Failure::usage(what, "install it with the features `cli` and `server`"))
}
