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
    let db = open::read_only(program)?;
    // Nobody is asked about what is refused.
    open::refuse_follower(&db)?;
    let keys = db.len()?;
    drop(db);
    let what = match keys {
        0 | 1 => units::count(keys, "key", "keys"),
        keys => format!("all {keys} keys"),
    };
    let question = format!("Remove {what} of {}?", dir.display());
    if !prompt::confirm(&question, args.yes)? {
        say("nothing was removed");
        return Ok(Exit::Absent);
    }
    let db = open::changeable(program)?;
    db.clear()?;
    db.close()?;
    Ok(Exit::Done)
}
