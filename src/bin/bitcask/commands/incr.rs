//! `incr`.

use std::ffi::OsString;

use bitcask::{WriteOptions, WriteStore};
use clap::Args;
use serde_json::json;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Format;
use crate::program::Program;
use crate::{input, open};

#[derive(Debug, Args)]
pub(crate) struct IncrArgs {
    key: OsString,
    /// What to add; a key that does not exist counts as 0.
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    by: i64,
    /// Creates the store if it does not exist.
    #[arg(long)]
    create: bool,
}

pub(crate) fn run(args: &IncrArgs, program: &mut Program) -> Result<Exit, Failure> {
    let key = input::key(&args.key, program.base64())?;
    let sum = if let Some(client) = program.remote()? {
        incr(&client, &key, args.by)?
    } else {
        let db = open::changeable_or_new(program, args.create)?;
        let sum = incr(&db, &key, args.by)?;
        db.close()?;
        sum
    };
    let sum = sum.map_err(|reason| Failure::usage(reason, "nothing was changed"))?;
    let printer = program.printer(Format::Plain)?;
    match printer.format {
        Format::Json => printer.json(&json!({ "value": sum }))?,
        _ => printer.line(&sum.to_string())?,
    }
    Ok(Exit::Done)
}

/// Adds to a key, again if somebody else changes it meanwhile.
fn incr<S: WriteStore>(db: &S, key: &[u8], by: i64) -> Result<Result<i64, &'static str>, S::Error> {
    // A counter keeps its time to live.
    let options = WriteOptions::new().keep_ttl(true);
    loop {
        let (value, version) = db.get_versioned(key)?.unzip();
        let sum = match add(value.as_deref(), by) {
            Ok(sum) => sum,
            Err(reason) => return Ok(Err(reason)),
        };
        let new = sum.to_string();
        if db.compare_and_swap_versioned_opt(key, version, Some(new.as_bytes()), options)?.is_ok() {
            return Ok(Ok(sum));
        }
    }
}

fn add(value: Option<&[u8]>, by: i64) -> Result<i64, &'static str> {
    let number = match value {
        None => 0,
        Some(bytes) => std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.trim().parse::<i64>().ok())
            .ok_or("the value is not a whole number of 64 bits")?,
    };
    number.checked_add(by).ok_or("the sum does not fit into 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_are_added_to() {
        assert_eq!(add(None, -3), Ok(-3));
        assert_eq!(add(Some(b" 40\n"), 2), Ok(42));
        for value in [&b"4.5"[..], b"", b"\xff", b"9223372036854775808"] {
            assert!(add(Some(value), 1).is_err());
        }
        assert!(add(Some(b"9223372036854775807"), 1).is_err());
    }
}
