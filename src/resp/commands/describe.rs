//! `COMMAND`, from the table of commands.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{help, rest};
use crate::resp::admission::find;
use crate::resp::commands_table::{CommandFlags, CommandSpec, table};
use crate::resp::glob;
use crate::resp::refusal::{Answer, refused, syntax};
use crate::resp::reply::Reply;
use crate::resp::reply_memory::ReplyMemory;
use crate::resp::session::Session;

fn spec_of(name: &[u8]) -> Option<&'static CommandSpec> {
    let name = name.to_ascii_lowercase();
    table().find(std::str::from_utf8(&name).ok()?).map(|(_, spec)| spec)
}

/// Describes a command as `COMMAND INFO` does.
fn described(spec: &CommandSpec) -> Reply {
    let names =
        |names: Vec<&'static str>| Reply::Set(names.into_iter().map(Reply::Simple).collect());
    let places = spec.places;
    let subcommands: Vec<_> =
        if spec.is_container() { spec.subcommands().map(described).collect() } else { Vec::new() };
    Reply::Array(vec![
        Reply::Text(spec.name),
        Reply::Integer(spec.arity),
        names(spec.flags.names()),
        Reply::count(places.first),
        Reply::Integer(places.last),
        Reply::count(places.step),
        names(spec.flags.categories(spec.group)),
        Reply::Array(Vec::new()),
        Reply::Array(key_specs(spec)),
        Reply::Array(subcommands),
    ])
}

/// Describes where the keys of a command are.
fn key_specs(spec: &CommandSpec) -> Vec<Reply> {
    let places = spec.places;
    if places.step == 0 {
        return Vec::new();
    }
    let first = i64::try_from(places.first).unwrap_or(1);
    let last = if places.last < 0 { places.last } else { places.last - first };
    let map = |name, pairs| (Reply::Text(name), Reply::Map(pairs));
    let is = |kind, spec| {
        vec![(Reply::Text("type"), Reply::Text(kind)), (Reply::Text("spec"), Reply::Map(spec))]
    };
    let index = vec![(Reply::Text("index"), Reply::Integer(first))];
    let range = vec![
        (Reply::Text("lastkey"), Reply::Integer(last)),
        (Reply::Text("keystep"), Reply::count(places.step)),
        (Reply::Text("limit"), Reply::Integer(0)),
    ];
    let flags = key_flags(spec).iter().copied().map(Reply::Simple).collect();
    vec![Reply::Map(vec![
        (Reply::Text("flags"), Reply::Set(flags)),
        map("begin_search", is("index", index)),
        map("find_keys", is("range", range)),
    ])]
}

/// Says what a command does to its keys.
fn key_flags(spec: &CommandSpec) -> &'static [&'static str] {
    if spec.flags.has(CommandFlags::WRITE) {
        &["RW", "ACCESS", "UPDATE"]
    } else {
        &["RO", "ACCESS"]
    }
}

pub(in crate::resp) fn all(_session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(Reply::Array(table().commands().map(described).collect()))
}

pub(in crate::resp) fn count(_session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(Reply::count(table().commands().count()))
}

pub(in crate::resp) fn info(session: &mut Session, args: &[Bytes]) -> Answer {
    let names = rest(args, 2);
    if names.is_empty() {
        return all(session, args);
    }
    let (mut replies, mut memory) = (Vec::new(), ReplyMemory::default());
    for name in names {
        let reply = spec_of(name).map_or(Reply::NullArray, described);
        memory.add(&reply)?;
        replies.push(reply);
    }
    Ok(Reply::Array(replies))
}

fn documented(spec: &'static CommandSpec) -> (Reply, Reply) {
    let mut parts = vec![
        (Reply::Text("summary"), Reply::Text(spec.summary)),
        (Reply::Text("since"), Reply::Text(spec.since)),
        (Reply::Text("group"), Reply::Text(spec.group)),
    ];
    if spec.is_container() {
        let subcommands = spec.subcommands().map(documented).collect();
        parts.push((Reply::Text("subcommands"), Reply::Map(subcommands)));
    }
    (Reply::Text(spec.name), Reply::Map(parts))
}

pub(in crate::resp) fn docs(_session: &mut Session, args: &[Bytes]) -> Answer {
    let names = rest(args, 2);
    let pairs: Vec<_> = if names.is_empty() {
        table().commands().map(documented).collect()
    } else {
        // Each command once, however often it is named.
        let mut seen = BTreeSet::new();
        let specs = names.iter().filter_map(|name| spec_of(name));
        specs.filter(|spec| seen.insert(spec.name)).map(documented).collect()
    };
    Ok(Reply::Map(pairs))
}

pub(in crate::resp) fn list(_session: &mut Session, args: &[Bytes]) -> Answer {
    let all = table().commands();
    let names: Vec<&'static str> = match rest(args, 2) {
        [] => all.map(|spec| spec.name).collect(),
        [by, kind, value] if super::is(by, "FILTERBY") => {
            let value = value.to_ascii_lowercase();
            match kind.to_ascii_lowercase().as_slice() {
                b"pattern" => all
                    .filter(|spec| glob::matches(&value, spec.name.as_bytes()))
                    .map(|spec| spec.name)
                    .collect(),
                b"aclcat" => {
                    let wanted = format!("@{}", String::from_utf8_lossy(&value));
                    let has = |spec: &&CommandSpec| {
                        spec.flags.categories(spec.group).contains(&wanted.as_str())
                    };
                    all.filter(has).map(|spec| spec.name).collect()
                }
                b"module" => Vec::new(),
                _ => return syntax(),
            }
        }
        _ => return syntax(),
    };
    Ok(Reply::texts(&names))
}

/// Returns the keys of the command that the arguments are.
fn keys_of(args: &[Bytes]) -> Answer<(&'static CommandSpec, Vec<&Bytes>)> {
    let Ok((_, spec)) = find(args) else { return refused("ERR Invalid command specified") };
    if !spec.accepts(args.len()) {
        return refused("ERR Invalid number of arguments specified for command");
    }
    match spec.keys(args) {
        Some(keys) => Ok((spec, keys)),
        None => refused("ERR The command has no key arguments"),
    }
}

pub(in crate::resp) fn getkeys(_session: &mut Session, args: &[Bytes]) -> Answer {
    let (_, keys) = keys_of(rest(args, 2))?;
    Ok(Reply::Array(keys.into_iter().cloned().map(Reply::Bulk).collect()))
}

pub(in crate::resp) fn getkeysandflags(_session: &mut Session, args: &[Bytes]) -> Answer {
    let (spec, keys) = keys_of(rest(args, 2))?;
    let flags = key_flags(spec).iter().copied().map(Reply::Simple);
    let flags = Reply::Set(flags.collect());
    let one = |key: &Bytes| Reply::Array(vec![Reply::Bulk(key.clone()), flags.clone()]);
    Ok(Reply::Array(keys.into_iter().map(one).collect()))
}

pub(in crate::resp) fn help_text(_session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(help(
        "COMMAND",
        &[
            "(no subcommand)",
            "    Tell about all commands.",
            "COUNT",
            "    Return the number of commands.",
            "DOCS [<command-name> [<command-name> ...]]",
            "    Describe commands.",
            "GETKEYS <full-command> | GETKEYSANDFLAGS <full-command>",
            "    Return the keys of a command.",
            "INFO [<command-name> [<command-name> ...]]",
            "    Tell about commands.",
            "LIST [FILTERBY (MODULE <module>|ACLCAT <category>|PATTERN <pattern>)]",
            "    Return the names of commands.",
        ],
    ))
}
