//! `CLIENT`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::{arg, help, integer, is, rest};
use crate::resp::clients_names::check_name;
use crate::resp::keyspace::STRING_SIZE_MAX;
use crate::resp::peers::Peer;
use crate::resp::refusal::{Answer, TOO_LARGE, refused, refused_with, syntax};
use crate::resp::reply::{OK, Reply};
use crate::resp::session::{ReplyMode, Session};

pub(in crate::resp) fn id(session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(Reply::count(session.peer.id))
}

pub(in crate::resp) fn getname(session: &mut Session, _args: &[Bytes]) -> Answer {
    let name = session.peer.view().0.name.clone();
    Ok(if name.is_empty() { Reply::Null } else { Reply::bulk(name) })
}

pub(in crate::resp) fn setname(session: &mut Session, args: &[Bytes]) -> Answer {
    let name = check_name(arg(args, 2), "Client names")?;
    session.peer.view().0.name = name;
    Ok(OK)
}

pub(in crate::resp) fn setinfo(session: &mut Session, args: &[Bytes]) -> Answer {
    let (option, value) = (arg(args, 2), arg(args, 3));
    if is(option, "lib-name") {
        let value = check_name(value, "lib-name")?;
        session.peer.view().0.library = value;
    } else if is(option, "lib-ver") {
        let value = check_name(value, "lib-ver")?;
        session.peer.view().0.library_version = value;
    } else {
        let option = String::from_utf8_lossy(option);
        return refused_with(format!("ERR Unrecognized option '{option}'"));
    }
    Ok(OK)
}

pub(in crate::resp) fn info(session: &mut Session, _args: &[Bytes]) -> Answer {
    session.show(0);
    Ok(Reply::Verbatim(format!("{}\n", session.peer.line())))
}

pub(in crate::resp) fn list(session: &mut Session, args: &[Bytes]) -> Answer {
    session.show(0);
    let all = session.state.peers.list();
    let chosen: Vec<Arc<Peer>> = match rest(args, 2) {
        [] => all,
        [option, kind] if is(option, "TYPE") => {
            let kind = kind.to_ascii_lowercase();
            check_type(&kind)?;
            all.into_iter().filter(|peer| is_type(peer, &kind)).collect()
        }
        [option, ids @ ..] if is(option, "ID") && !ids.is_empty() => {
            let mut wanted = BTreeSet::new();
            for id in ids {
                wanted.insert(u64::try_from(client_id(id)?).unwrap_or(0));
            }
            // Each client once, however often it is named.
            all.into_iter().filter(|peer| wanted.contains(&peer.id)).collect()
        }
        _ => return syntax(),
    };
    let mut lines = String::new();
    for peer in chosen {
        lines.push_str(&peer.line());
        lines.push('\n');
        if lines.len() > STRING_SIZE_MAX {
            return refused(TOO_LARGE);
        }
    }
    Ok(Reply::Verbatim(lines))
}

fn client_id(text: &[u8]) -> Answer<i64> {
    match crate::wire::parse_integer(text) {
        Some(id) if id > 0 => Ok(id),
        _ => refused("ERR Invalid client ID"),
    }
}

fn check_type(kind: &[u8]) -> Answer<()> {
    let known = ["normal", "master", "replica", "slave", "pubsub"];
    if known.iter().any(|name| is(kind, name)) {
        return Ok(());
    }
    let kind = String::from_utf8_lossy(kind);
    refused_with(format!("ERR Unknown client type '{kind}'"))
}

fn is_type(peer: &Peer, kind: &[u8]) -> bool {
    let view = peer.view();
    let is_subscriber = view.0.channels + view.0.patterns > 0;
    match kind {
        b"pubsub" => is_subscriber,
        b"normal" => !is_subscriber,
        _ => false,
    }
}

pub(in crate::resp) fn kill(session: &mut Session, args: &[Bytes]) -> Answer {
    let mut options = rest(args, 2);
    if let [address] = options {
        let found = session.state.peers.list();
        let found = found.iter().find(|peer| peer.address.as_bytes() == &**address);
        let Some(peer) = found else { return refused("ERR No such client") };
        end(session, peer);
        return Ok(OK);
    }
    let mut chosen = session.state.peers.list();
    let mut skips_me = true;
    while let [option, value, after @ ..] = options {
        options = after;
        if is(option, "ID") {
            let id = client_id(value)?;
            chosen.retain(|peer| i64::try_from(peer.id) == Ok(id));
        } else if is(option, "ADDR") {
            chosen.retain(|peer| peer.address.as_bytes() == &**value);
        } else if is(option, "LADDR") {
            chosen.retain(|peer| peer.local_address.as_bytes() == &**value);
        } else if is(option, "TYPE") {
            check_type(value)?;
            let kind = value.to_ascii_lowercase();
            chosen.retain(|peer| is_type(peer, &kind));
        } else if is(option, "USER") {
            if **value != *b"default" {
                let user = String::from_utf8_lossy(value);
                return refused_with(format!("ERR No such user '{user}'"));
            }
        } else if is(option, "MAXAGE") {
            let age = integer(value)?;
            let is_older = |peer: &Arc<Peer>| {
                i64::try_from(peer.since.elapsed().as_secs()).is_ok_and(|secs| secs >= age)
            };
            chosen.retain(is_older);
        } else if is(option, "SKIPME") {
            skips_me = match value.to_ascii_lowercase().as_slice() {
                b"yes" => true,
                b"no" => false,
                _ => return syntax(),
            };
        } else {
            return syntax();
        }
    }
    if !options.is_empty() {
        return syntax();
    }
    let me = session.peer.id;
    chosen.retain(|peer| !skips_me || peer.id != me);
    for peer in &chosen {
        end(session, peer);
    }
    Ok(Reply::count(chosen.len()))
}

/// Ends a connection: another one at once, and the session's own after its reply.
fn end(session: &mut Session, peer: &Peer) {
    if peer.id == session.peer.id {
        session.is_closing = true;
    } else {
        session.state.peers.remove(peer.id);
        peer.outbox.end();
    }
}

pub(in crate::resp) fn on_or_off(_session: &mut Session, args: &[Bytes]) -> Answer {
    parse_switch(arg(args, 2))?;
    Ok(OK)
}

pub(super) fn parse_switch(text: &[u8]) -> Answer<bool> {
    match text.to_ascii_lowercase().as_slice() {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => syntax(),
    }
}

pub(in crate::resp) fn reply(session: &mut Session, args: &[Bytes]) -> Answer {
    session.replies = match arg(args, 2).to_ascii_lowercase().as_slice() {
        b"on" => ReplyMode::On,
        b"off" => ReplyMode::Off,
        b"skip" if session.replies == ReplyMode::Off => ReplyMode::Off,
        b"skip" => ReplyMode::SkipNext,
        _ => return syntax(),
    };
    Ok(OK)
}

pub(in crate::resp) fn unblock(_session: &mut Session, args: &[Bytes]) -> Answer {
    integer(arg(args, 2))?;
    Ok(Reply::Integer(0))
}

pub(in crate::resp) fn help_text(_session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(help(
        "CLIENT",
        &[
            "CACHING (YES|NO)",
            "    Say whether the next command is tracked.",
            "GETNAME | GETREDIR | ID | INFO | TRACKINGINFO",
            "    Tell about the client.",
            "KILL <ip:port> | KILL <option> <value> [<option> <value> ...]",
            "    Disconnect clients. Options: ADDR, LADDR, TYPE, ID, USER, MAXAGE, SKIPME.",
            "LIST [TYPE <type> | ID <id> [<id> ...]]",
            "    Tell about all clients.",
            "REPLY (ON|OFF|SKIP)",
            "    Say which replies the client wants.",
            "SETINFO <option> <value> | SETNAME <name>",
            "    Name the client and its library.",
            "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> ...] [OPTIN] [OPTOUT] [NOLOOP]",
            "    Begin or end to tell the client of changed keys.",
        ],
    ))
}
