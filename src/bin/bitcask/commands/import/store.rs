//! The stores of other programs.

use std::path::Path;

use clap::ValueEnum;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::program::Program;

/// A program whose stores can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Foreign {
    /// bitcaskpy, in Python.
    Bitcaskpy,
    /// pybitcask, in Python: both of its formats.
    Pybitcask,
    /// Basho's bitcask, in Erlang, as Riak uses it.
    Basho,
    /// prologic's bitcask, in Go.
    Prologic,
}

/// Imports another program's store.
pub(super) fn import(
    foreign: Foreign,
    dir: &Path,
    _program: &mut Program,
) -> Result<Exit, Failure> {
    let what =
        format!("cannot import {}: this build has no importer for {foreign:?}", dir.display());
    Err(Failure::usage(what, "use a build with the feature `import`"))
}
