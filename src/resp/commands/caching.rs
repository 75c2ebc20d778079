//! `CLIENT TRACKING` and what belongs to it.

use bytes::Bytes;

use super::clients::parse_switch;
use super::{arg, integer, is, rest};
use crate::resp::refusal::{Answer, refused, refused_with, syntax};
use crate::resp::reply::{OK, Reply};
use crate::resp::session::{NAMES_SIZE_MAX, Session, size_of_names};
use crate::resp::tracking::TrackingMode;

/// Maximum number of prefixes of a client. They are compared with each other.
const PREFIXES_MAX: usize = 1000;

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
        return refused(
            "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
        );
    }
    if !yes && !mode.opt_out {
        return refused(
            "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
        );
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
                    return refused("ERR A client can only redirect to a single other client");
                }
                let id = u64::try_from(integer(value)?).unwrap_or(0);
                if session.state.peers.get(id).is_none() {
                    return refused("ERR The client ID you want redirect to does not exist");
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
    let has_many = old.len() + mode.prefixes.len() > PREFIXES_MAX;
    if has_many || size_of_names(old.iter().chain(&mode.prefixes)) > NAMES_SIZE_MAX {
        return refused("ERR too many prefixes");
    }
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
    if is_on && session.state.options.shards.is_some() {
        return refused("ERR Client tracking is not supported in a cluster");
    }
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
    session.state.databases.look();
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
    let flags = flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| Reply::Text(name));
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
