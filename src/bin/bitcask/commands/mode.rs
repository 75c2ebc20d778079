//! `mode`: what pybitcask's modes were for, and what there is instead.

use clap::{Args, ValueEnum};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Format;
use crate::program::Program;

#[derive(Debug, Args)]
pub(crate) struct ModeArgs {
    #[arg(default_value = "show")]
    mode: Mode,
}

/// The modes that pybitcask had.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Show,
    Normal,
    Debug,
}

/// Where to look instead.
pub(crate) const INSTEAD: &str = "\
A store has one format, and no debug mode that would need another. To read it as text, use
`bitcask dump`: it shows the manifest, segments, entries and hints of any store, and changes
nothing.";

pub(crate) fn run(args: &ModeArgs, program: &mut Program) -> Result<Exit, Failure> {
    let printer = program.printer(Format::Plain)?;
    match args.mode {
        Mode::Show | Mode::Normal => printer.line("Current mode: normal")?,
        Mode::Debug => {}
    }
    printer.line(INSTEAD)?;
    Ok(Exit::Done)
}
