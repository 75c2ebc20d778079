//! `list`, `scan` and `range`.

use std::ffi::OsString;
use std::ops::Bound;

use bitcask::{KeyRange, ReadStore, Value};
use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Printer};
use crate::program::Program;
use crate::record::LineOut;
use crate::{input, open};

/// How a listing is made.
#[derive(Debug, Args)]
pub(crate) struct ListingArgs {
    /// Prints at most this many results.
    #[arg(long, short = 'n', value_name = "NUMBER")]
    limit: Option<usize>,
    /// Begins with the last key.
    #[arg(long, short)]
    reverse: bool,
    /// Prints only the number of results.
    #[arg(long, conflicts_with = "limit")]
    count: bool,
    /// Ends each result with a zero byte instead of a newline, in plain form.
    #[arg(long, short = '0')]
    null: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Lists only the keys that begin with this.
    #[arg(default_value = "", hide_default_value = true)]
    prefix: OsString,
    #[command(flatten)]
    listing: ListingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ScanArgs {
    /// What the keys begin with.
    prefix: OsString,
    /// Prints only the keys.
    #[arg(long, short)]
    keys_only: bool,
    #[command(flatten)]
    listing: ListingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RangeArgs {
    /// The first key, or `-` for the beginning.
    from: OsString,
    /// The key to stop before, or `-` for the end.
    to: OsString,
    /// Includes TO.
    #[arg(long, short)]
    inclusive: bool,
    /// Prints only the keys.
    #[arg(long, short)]
    keys_only: bool,
    #[command(flatten)]
    listing: ListingArgs,
}

pub(crate) fn list(args: &ListArgs, program: &mut Program) -> Result<Exit, Failure> {
    let prefix = input::key(&args.prefix, program.base64())?;
    match program.remote()? {
        Some(client) => keys(client.prefix_keys(prefix), &args.listing, program),
        None => keys(open::read_only(program)?.prefix_keys(prefix), &args.listing, program),
    }
}

pub(crate) fn scan(args: &ScanArgs, program: &mut Program) -> Result<Exit, Failure> {
    let prefix = input::key(&args.prefix, program.base64())?;
    match program.remote()? {
        Some(client) => scan_in(&client, &prefix, args, program),
        None => scan_in(&open::read_only(program)?, &prefix, args, program),
    }
}

fn scan_in<S: ReadStore>(
    db: &S,
    prefix: &[u8],
    args: &ScanArgs,
    program: &mut Program,
) -> Result<Exit, Failure>
where
    Failure: From<S::Error>,
{
    if args.keys_only || args.listing.count {
        keys(db.prefix_keys(prefix), &args.listing, program)
    } else {
        pairs(db.prefix(prefix), &args.listing, program)
    }
}

pub(crate) fn range(args: &RangeArgs, program: &mut Program) -> Result<Exit, Failure> {
    let end = |argument: &OsString, bound: fn(Vec<u8>) -> Bound<Vec<u8>>| {
        if argument == "-" {
            return Ok(Bound::Unbounded);
        }
        input::key(argument, program.base64()).map(bound)
    };
    let to: fn(Vec<u8>) -> Bound<Vec<u8>> =
        if args.inclusive { Bound::Included } else { Bound::Excluded };
    let bounds = (end(&args.from, Bound::Included)?, end(&args.to, to)?);
    match program.remote()? {
        Some(client) => range_in(&client, bounds, args, program),
        None => range_in(&open::read_only(program)?, bounds, args, program),
    }
}

fn range_in<S: ReadStore>(
    db: &S,
    bounds: impl KeyRange,
    args: &RangeArgs,
    program: &mut Program,
) -> Result<Exit, Failure>
where
    Failure: From<S::Error>,
{
    if args.keys_only || args.listing.count {
        keys(db.range_keys(bounds), &args.listing, program)
    } else {
        pairs(db.range(bounds), &args.listing, program)
    }
}

fn keys<E>(
    found: impl DoubleEndedIterator<Item = Result<Value, E>>,
    listing: &ListingArgs,
    program: &mut Program,
) -> Result<Exit, Failure>
where
    Failure: From<E>,
{
    each(found, listing, program, |printer, key: Value| match printer.format {
        Format::Json => printer.json(&LineOut::new(&key, printer.base64())),
        _ => printer.columns(&["key"], &[&key]),
    })
}

fn pairs<E>(
    found: impl DoubleEndedIterator<Item = Result<(Value, Value), E>>,
    listing: &ListingArgs,
    program: &mut Program,
) -> Result<Exit, Failure>
where
    Failure: From<E>,
{
    each(found, listing, program, |printer, (key, value): (Value, Value)| match printer.format {
        Format::Json => {
            let base64 = printer.base64();
            printer.json(&LineOut::new(&key, base64).value(&value, base64))
        }
        _ => printer.columns(&["key", "value"], &[&key, &value]),
    })
}

/// Prints each result, or counts the results.
fn each<T, E>(
    found: impl DoubleEndedIterator<Item = Result<T, E>>,
    listing: &ListingArgs,
    program: &mut Program,
    mut print: impl FnMut(&mut Printer, T) -> Result<(), Failure>,
) -> Result<Exit, Failure>
where
    Failure: From<E>,
{
    let printer = program.printer(Format::Plain)?;
    if listing.count {
        let mut count = 0_u64;
        for item in found {
            item?;
            count += 1;
        }
        match printer.format {
            Format::Json => printer.json(&serde_json::json!({ "count": count }))?,
            _ => printer.line(&count.to_string())?,
        }
        return Ok(Exit::Done);
    }
    if listing.null {
        printer.end_with_zero();
    }
    let limit = listing.limit.unwrap_or(usize::MAX);
    let mut show = |item: Result<T, E>| print(printer, item?);
    if listing.reverse {
        found.rev().take(limit).try_for_each(&mut show)?;
    } else {
        found.take(limit).try_for_each(&mut show)?;
    }
    Ok(Exit::Done)
}
