//! `incr`.

use std::ffi::OsString;

use bitcask::WriteOptions;
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
    let db = open::writable_or_new(program, args.create)?;
    let sum = db.transaction(|tx| {
        let value = tx.get(&key)?;
        let sum = add(value.as_deref(), args.by);
        if let Ok(sum) = sum {
            // A counter keeps its time to live.
            tx.put_opt(&key, sum.to_string(), WriteOptions::new().keep_ttl(true));
        }
        Ok(sum)
    })?;
    db.close()?;
    let sum = sum.map_err(|reason| Failure::usage(reason, "nothing was changed"))?;
    let printer = program.printer(Format::Plain)?;
    match printer.format {
        Format::Json => printer.json(&json!({ "value": sum }))?,
        _ => printer.line(&sum.to_string())?,
    }
    Ok(Exit::Done)
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
