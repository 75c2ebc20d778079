//! The table of commands: their names, how many arguments they take, what they may do, and where
//! their keys are.
//!
//! - `COMMAND` answers from this table, and so do the checks before a command runs.
//! - A subcommand has a row of its own, named `container|subcommand`.

mod flags;
mod hashes;
mod keys;
mod server;
mod strings;
mod unsupported;

use std::collections::HashMap;
use std::sync::OnceLock;

use bytes::Bytes;

pub(super) use flags::CommandFlags;
pub(super) use unsupported::unsupported;

use super::keyspace::Keyspace;
use super::refusal::Answer;
use super::session::Session;

/// A command on keys.
pub(super) type OnKeys = fn(&mut Keyspace<'_>, &[Bytes]) -> Answer;
type OnSession = fn(&mut Session, &[Bytes]) -> Answer;

/// What implements a command.
#[derive(Debug, Clone, Copy)]
pub(super) enum Handler {
    /// Works on the keys of one database, and may be part of a transaction.
    Keys(OnKeys),
    /// Anything else.
    Session(OnSession),
}

/// Where the keys of a command are: the first argument that is one, the last, and the distance. A
/// negative last counts from the end. The command itself is argument 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyPlaces {
    pub(super) first: usize,
    pub(super) last: i64,
    pub(super) step: usize,
}

/// No keys at all.
const NONE: KeyPlaces = KeyPlaces { first: 0, last: 0, step: 0 };
/// The first argument.
const ONE: KeyPlaces = KeyPlaces { first: 1, last: 1, step: 1 };
/// The second argument.
const SECOND: KeyPlaces = KeyPlaces { first: 2, last: 2, step: 1 };
/// The first two arguments.
const TWO: KeyPlaces = KeyPlaces { first: 1, last: 2, step: 1 };
/// All arguments.
const ALL: KeyPlaces = KeyPlaces { first: 1, last: -1, step: 1 };
/// Every other argument.
const PAIRS: KeyPlaces = KeyPlaces { first: 1, last: -1, step: 2 };

/// A row of the table.
#[derive(Debug)]
pub(super) struct CommandSpec {
    /// In lower case.
    pub(super) name: &'static str,
    /// Number of arguments, with the name. A negative one is a minimum.
    pub(super) arity: i64,
    pub(super) flags: CommandFlags,
    pub(super) places: KeyPlaces,
    pub(super) run: Handler,
    /// The version of Redis that has introduced it.
    pub(super) since: &'static str,
    pub(super) summary: &'static str,
    pub(super) group: &'static str,
}

/// Rows of one group, as they are written down.
type CommandRow = (&'static str, i64, CommandFlags, KeyPlaces, Handler, &'static str, &'static str);

impl CommandSpec {
    fn new(group: &'static str, row: CommandRow) -> Self {
        let (name, arity, flags, places, run, since, summary) = row;
        Self { name, arity, flags, places, run, since, summary, group }
    }

    /// Returns whether a number of arguments is right.
    pub(super) fn accepts(&self, len: usize) -> bool {
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        if self.arity < 0 { len >= -self.arity } else { len == self.arity }
    }

    /// Returns whether the command is only a name for its subcommands.
    pub(super) fn is_container(&self) -> bool {
        self.flags.has(CommandFlags::CONTAINER)
    }

    /// Returns the keys among arguments, or `None` if the command has none.
    pub(super) fn keys<'a>(&self, args: &'a [Bytes]) -> Option<Vec<&'a Bytes>> {
        let KeyPlaces { first, last, step } = self.places;
        if step == 0 {
            return None;
        }
        let end = match usize::try_from(last) {
            Ok(last) => last + 1,
            Err(_) => args.len().saturating_sub(usize::try_from(-last - 1).unwrap_or(0)),
        };
        let keys = args.get(first..end.min(args.len())).unwrap_or_default();
        Some(keys.iter().step_by(step).collect())
    }

    /// Returns the names of the subcommands.
    pub(super) fn subcommands(&self) -> impl Iterator<Item = &'static Self> {
        let prefix = format!("{}|", self.name);
        table().rows.iter().filter(move |row| row.name.starts_with(&prefix))
    }
}

/// All commands.
#[derive(Debug)]
pub(super) struct CommandTable {
    rows: Vec<CommandSpec>,
    by_name: HashMap<&'static str, usize>,
}

impl CommandTable {
    fn new() -> Self {
        let groups: [(&'static str, Vec<CommandRow>); 8] = [
            ("string", strings::rows()),
            ("hash", hashes::rows()),
            ("generic", keys::rows()),
            ("connection", server::connection()),
            ("server", server::server()),
            ("cluster", server::cluster()),
            ("pubsub", server::publishing()),
            ("transactions", server::transactions()),
        ];
        let rows = groups.into_iter().flat_map(|(group, rows)| {
            rows.into_iter().map(move |row| CommandSpec::new(group, row))
        });
        let rows: Vec<_> = rows.collect();
        let by_name = rows.iter().enumerate().map(|(at, row)| (row.name, at)).collect();
        Self { rows, by_name }
    }

    /// Returns the number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn get(&self, at: usize) -> Option<&CommandSpec> {
        self.rows.get(at)
    }

    /// Finds a command by its name in lower case. Returns its place too.
    pub(super) fn find(&self, name: &str) -> Option<(usize, &CommandSpec)> {
        let at = *self.by_name.get(name)?;
        Some((at, self.rows.get(at)?))
    }

    /// Returns the commands, without subcommands.
    pub(super) fn commands(&self) -> impl Iterator<Item = &CommandSpec> {
        self.rows.iter().filter(|row| !row.name.contains('|'))
    }

    /// Returns all rows.
    pub(super) fn rows(&self) -> &[CommandSpec] {
        &self.rows
    }
}

/// Returns the table.
pub(super) fn table() -> &'static CommandTable {
    static TABLE: OnceLock<CommandTable> = OnceLock::new();
    TABLE.get_or_init(CommandTable::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once_and_in_lower_case() {
        let table = table();
        assert_eq!(table.by_name.len(), table.rows.len());
        for row in table.rows() {
            assert_eq!(row.name, row.name.to_ascii_lowercase());
            assert!(row.arity != 0 && !row.summary.is_empty() && !row.since.is_empty());
            assert!(unsupported(row.name).is_none(), "{} is supported", row.name);
            if let Some((container, _)) = row.name.split_once('|') {
                assert!(table.find(container).unwrap().1.is_container(), "{container}");
            }
        }
    }

    #[test]
    fn keys_are_found_where_the_table_says() {
        let find = |line: &str| {
            let args: Vec<Bytes> =
                line.split(' ').map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
            let spec = table().find(line.split(' ').next().unwrap()).unwrap().1;
            spec.keys(&args).map(|keys| keys.into_iter().cloned().collect::<Vec<_>>())
        };
        assert_eq!(find("get a").unwrap(), ["a"]);
        assert_eq!(find("mset a 1 b 2").unwrap(), ["a", "b"]);
        assert_eq!(find("del a b c").unwrap(), ["a", "b", "c"]);
        assert_eq!(find("rename a b").unwrap(), ["a", "b"]);
        assert_eq!(find("ping"), None);
    }
}
