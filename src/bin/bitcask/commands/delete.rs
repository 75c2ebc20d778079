//! `delete`.

use std::ffi::OsString;

use bitcask::WriteStore;
use clap::Args;

use super::get::absent;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::program::Program;
use crate::{input, open};

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The keys. If one of them does not exist, the others are deleted, and the exit code is 1.
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,
}

pub(crate) fn run(args: &DeleteArgs, program: &mut Program) -> Result<Exit, Failure> {
    let base64 = program.base64();
    let keys = args.keys.iter().map(|key| input::key(key, base64));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    if let Some(client) = program.remote()? {
        return Ok(delete(&client, &keys)?);
    }
    let db = open::changeable(program)?;
    let exit = delete(&db, &keys)?;
    db.close()?;
    Ok(exit)
}

fn delete<S: WriteStore>(db: &S, keys: &[Vec<u8>]) -> Result<Exit, S::Error> {
    let mut exit = Exit::Done;
    for key in keys {
        if !db.delete(key)? {
            exit = absent(key);
        }
    }
    Ok(exit)
}
