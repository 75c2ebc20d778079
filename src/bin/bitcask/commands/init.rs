//! `init`.

use clap::Args;

use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::open;
use crate::program::Program;

#[derive(Debug, Args)]
pub(crate) struct InitArgs {}

pub(crate) fn run(_args: &InitArgs, program: &mut Program) -> Result<Exit, Failure> {
    let dir = program.dir()?;
    let existed = open::is_store(&dir);
    let options = program.settings()?.options()?;
    open::create_at(&dir, options)?.close()?;
    let what = if existed { "there is already a store at" } else { "created a store at" };
    say(format_args!("{what} {}", dir.display()));
    Ok(Exit::Done)
}
