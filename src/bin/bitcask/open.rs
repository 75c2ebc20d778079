//! Opens the store, for reading or for writing.

use std::fs;
use std::path::Path;

use bitcask::{Bitcask, Error, Options, ReadOnly, Reader};

use crate::failure::{Failure, warn};
use crate::program::Program;

/// Opens the store for reading. Other processes may write to it meanwhile.
pub(crate) fn read_only(program: &mut Program) -> Result<ReadOnly, Failure> {
    read_only_with(program, Options::new())
}

/// Opens the store for reading, with options.
pub(crate) fn read_only_with(program: &mut Program, options: Options) -> Result<ReadOnly, Failure> {
    let dir = program.dir()?;
    ReadOnly::open(&dir, options).map_err(|error| refused(error, &dir))
}

/// Opens an existing store for writing.
pub(crate) fn writable(program: &mut Program) -> Result<Bitcask, Failure> {
    let options = program.settings()?.options()?;
    writable_with(program, options)
}

/// Opens an existing store for writing, with options that differ from the settings.
pub(crate) fn writable_with(program: &mut Program, options: Options) -> Result<Bitcask, Failure> {
    let dir = program.dir()?;
    let opened = Bitcask::open(&dir, options.create_if_missing(false));
    opened.map_err(|error| refused(error, &dir)).inspect(tell_cuts)
}

/// Opens the store for writing, and creates it if it does not exist and that is wanted.
pub(crate) fn writable_or_new(program: &mut Program, create: bool) -> Result<Bitcask, Failure> {
    if !create {
        return writable(program);
    }
    let (dir, options) = (program.dir()?, program.settings()?.options()?);
    create_at(&dir, options)
}

/// Opens an existing store to change its data.
pub(crate) fn changeable(program: &mut Program) -> Result<Bitcask, Failure> {
    unless_it_follows(writable(program)?)
}

/// Opens the store to change its data, and creates it if it does not exist and that is wanted.
pub(crate) fn changeable_or_new(program: &mut Program, create: bool) -> Result<Bitcask, Failure> {
    unless_it_follows(writable_or_new(program, create)?)
}

pub(crate) fn unless_it_follows(db: Bitcask) -> Result<Bitcask, Failure> {
    refuse_follower(&db)?;
    Ok(db)
}

/// Returns a failure if a store follows a leader: only the leader's changes may be written there.
pub(crate) fn refuse_follower(db: &Reader) -> Result<(), Failure> {
    let Some(leader) = db.followed_leader()? else { return Ok(()) };
    let (dir, is_known) = (db.path().display(), !leader.is_empty());
    let leader = if is_known { &leader } else { "another server" };
    let url = if is_known { leader } else { "URL" };
    let what = format!("the store in {dir} follows {leader}, and accepts no other changes");
    let advice = format!(
        "write to the leader; to make this store accept writes, run `bitcask server start --follow \
         {url}` on it and then `bitcask server promote`"
    );
    Err(Failure::usage(what, advice))
}

/// Opens a store for writing, and creates it if it does not exist.
pub(crate) fn create_at(dir: &Path, options: Options) -> Result<Bitcask, Failure> {
    if !is_store(dir)
        && let Some(foreign) = foreign_store(dir)
    {
        return Err(foreign);
    }
    let opened = Bitcask::open(dir, options.create_if_missing(true));
    opened.map_err(|error| refused(error, dir)).inspect(tell_cuts)
}

/// Returns whether a directory holds a store, or what looks like the rest of one.
pub(crate) fn is_store(dir: &Path) -> bool {
    dir.join("MANIFEST").exists()
}

/// Returns the failure to open a store, with advice that fits what the directory holds.
pub(crate) fn refused(error: Error, dir: &Path) -> Failure {
    match error {
        Error::NotFound { .. } => foreign_store(dir).unwrap_or_else(|| error.into()),
        error => error.into(),
    }
}

/// Returns a failure if a directory holds the store of another program, which this one cannot open
/// but import.
pub(crate) fn foreign_store(dir: &Path) -> Option<Failure> {
    let names =
        fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let program = names.take(NAMES_MAX).find_map(|name| program_of(&name))?;
    let dir = dir.display();
    let what = format!("{dir} holds a store of {program}, which has another format");
    let mut advice =
        format!("import it: `bitcask --dir NEW-DIRECTORY import --from {program} {dir}`");
    if program == "pybitcask" {
        advice += ", with --plain-strings if all values are strings, as `pbc` stores them";
    }
    Some(Failure::store(what, advice))
}

/// Maximum number of names that are looked at to recognize another program's store.
const NAMES_MAX: usize = 10_000;

/// Returns the program that gives such names to its files.
pub(crate) fn program_of(name: &str) -> Option<&'static str> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let between = |prefix, suffix| {
        name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix)).is_some_and(is_number)
    };
    if between("segment_", ".log") {
        Some("bitcaskpy")
    } else if between("data_", ".db") {
        Some("pybitcask")
    } else if between("", ".bitcask.data") {
        Some("basho")
    } else if between("", ".data") || is_name_of_fork(name) {
        Some("prologic")
    } else {
        None
    }
}

/// Returns whether a fork of prologic's bitcask gives such names. The importer says that it cannot
/// read its files.
fn is_name_of_fork(name: &str) -> bool {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.strip_suffix(".data")
        .and_then(|stem| stem.split_once('-'))
        .is_some_and(|(time, random)| is_number(time) && is_number(random))
}

/// Tells what opening has set aside, so that a loss after a crash does not go unnoticed.
fn tell_cuts(db: &Bitcask) {
    for cut in &db.recovery().cuts {
        let (path, reason) = (cut.path.display(), &cut.reason);
        let kept = cut.quarantine.as_ref();
        let kept = kept.map(|path| format!("; they are kept in {}", path.display()));
        warn(format_args!(
            "{} bytes of {path} from offset {} were cut off, as a crash leaves them: {reason}{}",
            cut.size,
            cut.offset,
            kept.unwrap_or_default()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_of_other_programs_are_recognized_by_their_names() {
        assert_eq!(program_of("segment_0.log"), Some("bitcaskpy"));
        assert_eq!(program_of("data_12.db"), Some("pybitcask"));
        assert_eq!(program_of("1.bitcask.data"), Some("basho"));
        assert_eq!(program_of("000000001.data"), Some("prologic"));
        for name in ["0000000001.log", "segment_x.log", "data_.db", ".data", "MANIFEST"] {
            assert_eq!(program_of(name), None, "{name}");
        }
    }
}
