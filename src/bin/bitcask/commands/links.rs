//! `links`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::legacy::OldName;
use crate::output::Format;
use crate::program::Program;

/// Started under one of these names, the program speaks the commands and wordings of the program
/// that had the name.
#[derive(Debug, Args)]
pub(crate) struct LinksArgs {
    /// The directory for the links, for example one in your PATH.
    target: PathBuf,
    /// Replaces links that exist.
    #[arg(long, short)]
    force: bool,
}

pub(crate) fn run(args: &LinksArgs, program: &mut Program) -> Result<Exit, Failure> {
    let this = std::env::current_exe();
    let this =
        this.map_err(|error| Failure::store(format!("cannot find this program: {error}"), ""))?;
    fs::create_dir_all(&args.target)
        .map_err(|error| Failure::file("create", &args.target, &error))?;
    for name in OldName::ALL {
        let link = args.target.join(name.as_str());
        // Only a link is replaced, never a program.
        if args.force && fs::symlink_metadata(&link).is_ok_and(|meta| meta.is_symlink()) {
            fs::remove_file(&link).map_err(|error| Failure::file("remove", &link, &error))?;
        }
        symlink(&this, &link).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                let what = format!("{} exists already", link.display());
                Failure::usage(what, "remove it, or add --force if it is a link")
            }
            _ => Failure::file("create", &link, &error),
        })?;
        program.printer(Format::Plain)?.line(&link.display().to_string())?;
    }
    Ok(Exit::Done)
}
