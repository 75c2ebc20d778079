//! `completions`, `man` and `version`: what a shell and a package need.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use serde_json::json;

use crate::args::Cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Format;
use crate::program::Program;

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Writes the pages of all commands to this directory.
    target: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {}

/// The version of the format that this program writes.
const FORMAT_VERSION: u32 = 1;

pub(crate) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bitcask", &mut script);
    write_out(&script)
}

pub(crate) fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let Some(target) = &args.target else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page).map_err(|error| Failure::output(&error))?;
        return write_out(&page);
    };
    let failed = |error: &io::Error| Failure::file("write pages to", target, error);
    fs::create_dir_all(target).map_err(|error| failed(&error))?;
    clap_mangen::generate_to(Cli::command(), target).map_err(|error| failed(&error))?;
    Ok(Exit::Done)
}

fn write_out(bytes: &[u8]) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map(|()| Exit::Done).map_err(|error| Failure::output(&error))
}

pub(crate) fn version(_args: &VersionArgs, program: &mut Program) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let parts = [
        ("lz4", cfg!(feature = "lz4")),
        ("plots", cfg!(feature = "plots")),
        ("tui", cfg!(feature = "tui")),
        ("zstd", cfg!(feature = "zstd")),
    ];
    let features: Vec<_> = parts.iter().filter(|(_, yes)| *yes).map(|(name, _)| *name).collect();
    let printer = program.printer(Format::Plain)?;
    if printer.format == Format::Json {
        printer
            .json(&json!({ "version": version, "format": FORMAT_VERSION, "features": features }))?;
    } else {
        printer.line(&format!("bitcask {version}"))?;
        printer.line(&format!("format on disk: version {FORMAT_VERSION}"))?;
        if !features.is_empty() {
            printer.line(&format!("built with: {}", features.join(", ")))?;
        }
    }
    Ok(Exit::Done)
}
