//! The program `bitcask`: inspects stores, changes them, repairs them, and moves data in and out.
//!
//! - It uses the public API of the crate and nothing else.
//! - `args` says what can be asked for; `commands` has a file for each command or small group.
//! - Results go to standard output, everything else to standard error.
//! - When it is started under the name of an older program, `legacy` answers as that program did.

mod args;
mod commands;
mod exit;
mod failure;
mod input;
mod interrupt;
mod legacy;
mod log_lines;
mod log_queue;
mod open;
mod output;
mod program;
mod progress;
mod prompt;
mod record;
mod remote;
mod settings;
mod units;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::args::Cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::program::Program;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let ended = interrupt::listen().and_then(|()| match legacy::OldName::of(arguments.first()) {
        Some(name) => legacy::run(name, arguments),
        None => run(arguments),
    });
    let exit = ended.unwrap_or_else(|failure| failure.report());
    log_queue::flush();
    ExitCode::from(exit.code())
}

/// Runs the program under its own name.
fn run(arguments: Vec<OsString>) -> Result<Exit, Failure> {
    let started = Instant::now();
    let parsed = Cli::command().try_get_matches_from(arguments).and_then(|matches| {
        let name = matches.subcommand_name().unwrap_or_default().to_owned();
        Ok((name, Cli::from_arg_matches(&matches)?))
    });
    let (name, cli) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return Ok(exit::of_parsing(&error)),
    };
    cli.global.color.apply();
    cli.global.log.start(cli.command.usual_lines());
    let mut program = Program::new(cli.global);
    let ended =
        commands::run(cli.command, &mut program).and_then(|exit| program.finish().map(|()| exit));
    let exit = ended.as_ref().map_or_else(Failure::exit, |exit| *exit);
    log_lines::command_ended(&name, exit, started);
    ended
}
