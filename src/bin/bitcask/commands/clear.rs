//! `clear`.

use clap::Args;

use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::program::Program;
use crate::{open, prompt, units};

#[derive(Debug, Args)]
pub(crate) struct ClearArgs {
    /// Does not ask.
    #[arg(long, short)]
    yes: bool,
}

pub(crate) fn run(args: &ClearArgs, program: &mut Program) -> Result<Exit, Failure> {
    let dir = program.dir()?;
    let keys = open::read_only(program)?.len()?;
    let what = match keys {
        0 | 1 => units::count(keys, "key", "keys"),
        keys => format!("all {keys} keys"),
    };
    let question = format!("Remove {what} of {}?", dir.display());
    if !prompt::confirm(&question, args.yes)? {
        say("nothing was removed");
        return Ok(Exit::Absent);
    }
    let db = open::writable(program)?;
    db.clear()?;
    db.close()?;
    Ok(Exit::Done)
}
