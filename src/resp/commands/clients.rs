//! `CLIENT`.

use std::sync::Arc;

use bytes::Bytes;

use super::{arg, help, integer, is, rest};
use crate::resp::clients_names::check_name;
use crate::resp::peers::Peer;
use crate::resp::refusal::{Answer, refused, refused_with, syntax};
use crate::resp::reply::{OK, Reply};
use crate::resp::session::{ReplyMode, Session};
use crate::resp::tracking::TrackingMode;

/// Maximum number of prefixes that one command names. They are compared with each other.
const PREFIXES_MAX: usize = 1000;

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
            let mut chosen = Vec::new();
            for id in ids {
                let id = u64::try_from(client_id(id)?).unwrap_or(0);
                chosen.extend(session.state.peers.get(id));
            }
            chosen
        }
        _ => return syntax(),
    };
    let lines: Vec<String> = chosen.iter().map(|peer| format!("{}\n", peer.line())).collect();
    Ok(Reply::Verbatim(lines.concat()))
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
    chosen.iter().for_each(|peer| end(session, peer));
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

fn parse_switch(text: &[u8]) -> Answer<bool> {
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

pub(in crate::resp) fn caching(session: &mut Session, args: &[Bytes]) -> Answer {
    let yes = match arg(args, 2).to_ascii_lowercase().as_slice() {
        b"yes" => true,
        b"no" => false,
        _ => return syntax(),
    };
    let Some(mode) = &session.tracking else {
        return refused(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with \
             OPTIN or OPTOUT mode enabled",
        );
    };
    if yes && !mode.opt_in {
        return refused("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.");
    }
    if !yes && !mode.opt_out {
        return refused("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.");
    }
    session.caching = Some(yes);
    Ok(OK)
}

fn parse_tracking(session: &Session, mut options: &[Bytes]) -> Answer<TrackingMode> {
    let mut mode = TrackingMode::default();
    while let [option, after @ ..] = options {
        options = after;
        if is(option, "BCAST") {
            mode.by_prefix = true;
        } else if is(option, "OPTIN") {
            mode.opt_in = true;
        } else if is(option, "OPTOUT") {
            mode.opt_out = true;
        } else if is(option, "NOLOOP") {
            mode.no_loop = true;
        } else if let [value, after @ ..] = options {
            options = after;
            if is(option, "REDIRECT") {
                if mode.redirect.is_some() {
                    return refused(
                        "ERR A client can only redirect to a single other client",
                    );
                }
                let id = u64::try_from(integer(value)?).unwrap_or(0);
                if session.state.peers.get(id).is_none() {
                    return refused(
                        "ERR The client ID you want redirect to does not exist",
                    );
                }
                mode.redirect = Some(id);
            } else if is(option, "PREFIX") {
                if mode.prefixes.len() == PREFIXES_MAX {
                    return refused("ERR too many prefixes");
                }
                mode.prefixes.push(Bytes::copy_from_slice(value));
            } else {
                return syntax();
            }
        } else {
            return syntax();
        }
    }
    Ok(mode)
}

/// Refuses options that contradict each other.
fn check_tracking(session: &Session, mode: &TrackingMode) -> Answer<()> {
    if !mode.by_prefix && !mode.prefixes.is_empty() {
        return refused("ERR PREFIX option requires BCAST mode to be enabled");
    }
    if let Some(current) = &session.tracking
        && current.by_prefix != mode.by_prefix
    {
        return refused(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, \
             and then re-enabling it with a different mode.",
        );
    }
    if mode.by_prefix && (mode.opt_in || mode.opt_out) {
        return refused("ERR OPTIN and OPTOUT are not compatible with BCAST");
    }
    if mode.opt_in && mode.opt_out {
        return refused("ERR You can't specify both OPTIN mode and OPTOUT mode");
    }
    if let Some(current) = &session.tracking
        && (mode.opt_in && current.opt_out || mode.opt_out && current.opt_in)
    {
        return refused(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, \
             and then re-enabling it with a different mode.",
        );
    }
    let old = session.tracking.as_ref().map_or(&[][..], |current| &current.prefixes);
    for (at, prefix) in mode.prefixes.iter().enumerate() {
        let others = mode.prefixes.iter().skip(at + 1);
        let others = others.map(|other| (other, "another provided prefix"));
        for (other, what) in old.iter().map(|old| (old, "an existing prefix")).chain(others) {
            if prefix.starts_with(other) || other.starts_with(prefix) {
                let prefix = String::from_utf8_lossy(prefix);
                let other = String::from_utf8_lossy(other);
                return refused_with(format!(
                    "ERR Prefix '{prefix}' overlaps with {what} '{other}'. Prefixes for a single \
                     client must not overlap."
                ));
            }
        }
    }
    Ok(())
}

pub(in crate::resp) fn tracking(session: &mut Session, args: &[Bytes]) -> Answer {
    let is_on = parse_switch(arg(args, 2))?;
    let mut mode = parse_tracking(session, rest(args, 3))?;
    if !is_on {
        session.tracking = None;
        session.caching = None;
        session.state.tracker.end(session.peer.id);
        return Ok(OK);
    }
    check_tracking(session, &mode)?;
    if let Some(current) = &session.tracking {
        mode.prefixes.extend(current.prefixes.iter().cloned());
    }
    if mode.by_prefix && mode.prefixes.is_empty() {
        // Every key begins with it.
        mode.prefixes.push(Bytes::new());
    }
    session.state.tracker.begin(&session.peer, &mode);
    session.tracking = Some(mode);
    let state = Arc::clone(&session.state);
    state.followers.look(&state)?;
    Ok(OK)
}

pub(in crate::resp) fn getredir(session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(match &session.tracking {
        None => Reply::Integer(-1),
        Some(mode) => Reply::count(mode.redirect.unwrap_or(0)),
    })
}

pub(in crate::resp) fn trackinginfo(session: &mut Session, _args: &[Bytes]) -> Answer {
    let off = TrackingMode::default();
    let mode = session.tracking.as_ref().unwrap_or(&off);
    let is_on = session.tracking.is_some();
    let is_lost = mode.redirect.is_some_and(|id| session.state.peers.get(id).is_none());
    let flags = [
        ("off", !is_on),
        ("on", is_on),
        ("bcast", mode.by_prefix),
        ("optin", mode.opt_in),
        ("optout", mode.opt_out),
        ("noloop", mode.no_loop),
        ("caching-yes", session.caching == Some(true)),
        ("caching-no", session.caching == Some(false)),
        ("broken_redirect", is_lost),
    ];
    let flags = flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| Reply::Text(*name));
    let redirect = if is_on {
        mode.redirect.map_or(Reply::Integer(0), Reply::count)
    } else {
        Reply::Integer(-1)
    };
    let prefixes = mode.prefixes.iter().cloned().map(Reply::Bulk).collect();
    Ok(Reply::Map(vec![
        (Reply::Text("flags"), Reply::Set(flags.collect())),
        (Reply::Text("redirect"), redirect),
        (Reply::Text("prefixes"), Reply::Array(prefixes)),
    ]))
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
