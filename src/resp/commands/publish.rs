//! Publishing and subscribing.

use std::sync::Arc;

use bytes::Bytes;

use super::{arg, help, rest};
use crate::resp::refusal::{Answer, refused};
use crate::resp::reply::Reply;
use crate::resp::session::{NAMES_SIZE_MAX, Session, size_of_names};

/// Returns the confirmation of one subscription, or of its end.
fn confirmed(session: &Session, kind: &'static str, name: Option<&Bytes>) -> Reply {
    let count = Reply::count(session.channels.len() + session.patterns.len());
    let name = Reply::maybe(name.cloned().map(Reply::Bulk));
    Reply::Push(vec![Reply::Text(kind), name, count])
}

/// Refuses subscriptions that would take too much memory.
fn check_room(session: &Session, names: &[Bytes]) -> Answer<()> {
    if session.subscribed_size + size_of_names(names) > NAMES_SIZE_MAX {
        return refused("ERR the names of the channels and patterns are too large");
    }
    Ok(())
}

pub(in crate::resp) fn subscribe(session: &mut Session, args: &[Bytes]) -> Answer {
    let mut replies = Vec::new();
    check_room(session, rest(args, 1))?;
    for channel in rest(args, 1) {
        let channel = Bytes::copy_from_slice(channel);
        session.state.hub.subscribe(&channel, &session.peer);
        if session.channels.insert(channel.clone()) {
            session.subscribed_size += size_of_names([&channel]);
        }
        replies.push(confirmed(session, "subscribe", Some(&channel)));
    }
    session.peer.view().0.channels = session.channels.len();
    Ok(Reply::Several(replies))
}

pub(in crate::resp) fn psubscribe(session: &mut Session, args: &[Bytes]) -> Answer {
    let mut replies = Vec::new();
    check_room(session, rest(args, 1))?;
    for pattern in rest(args, 1) {
        let pattern = Bytes::copy_from_slice(pattern);
        session.state.hub.subscribe_pattern(&pattern, &session.peer);
        if session.patterns.insert(pattern.clone()) {
            session.subscribed_size += size_of_names([&pattern]);
        }
        replies.push(confirmed(session, "psubscribe", Some(&pattern)));
    }
    Ok(Reply::Several(replies))
}

pub(in crate::resp) fn unsubscribe(session: &mut Session, args: &[Bytes]) -> Answer {
    let mut names: Vec<Bytes> = rest(args, 1).to_vec();
    if names.is_empty() {
        names = session.channels.iter().cloned().collect();
    }
    let mut replies = Vec::new();
    for name in &names {
        if session.channels.remove(name) {
            session.state.hub.unsubscribe(name, session.peer.id);
            session.subscribed_size -= size_of_names([name]);
        }
        replies.push(confirmed(session, "unsubscribe", Some(name)));
    }
    if names.is_empty() {
        replies.push(confirmed(session, "unsubscribe", None));
    }
    session.peer.view().0.channels = session.channels.len();
    Ok(Reply::Several(replies))
}

pub(in crate::resp) fn punsubscribe(session: &mut Session, args: &[Bytes]) -> Answer {
    let mut names: Vec<Bytes> = rest(args, 1).to_vec();
    if names.is_empty() {
        names = session.patterns.iter().cloned().collect();
    }
    let mut replies = Vec::new();
    for name in &names {
        if session.patterns.remove(name) {
            session.state.hub.unsubscribe_pattern(name, session.peer.id);
            session.subscribed_size -= size_of_names([name]);
        }
        replies.push(confirmed(session, "punsubscribe", Some(name)));
    }
    if names.is_empty() {
        replies.push(confirmed(session, "punsubscribe", None));
    }
    Ok(Reply::Several(replies))
}

pub(in crate::resp) fn publish(session: &mut Session, args: &[Bytes]) -> Answer {
    let state = Arc::clone(&session.state);
    Ok(Reply::Integer(state.hub.publish(arg(args, 1), arg(args, 2))))
}

pub(in crate::resp) fn channels(session: &mut Session, args: &[Bytes]) -> Answer {
    let pattern = args.get(2).map(|pattern| &**pattern);
    let channels = session.state.hub.channels(pattern);
    Ok(Reply::Array(channels.into_iter().map(Reply::Bulk).collect()))
}

pub(in crate::resp) fn numsub(session: &mut Session, args: &[Bytes]) -> Answer {
    let mut items = Vec::new();
    for channel in rest(args, 2) {
        items.push(Reply::Bulk(channel.clone()));
        items.push(Reply::count(session.state.hub.subscriber_count(channel)));
    }
    Ok(Reply::Array(items))
}

pub(in crate::resp) fn numpat(session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(Reply::count(session.state.hub.pattern_count()))
}

pub(in crate::resp) fn help_text(_session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(help(
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    Return the channels with subscribers.",
            "NUMPAT",
            "    Return the number of patterns with subscribers.",
            "NUMSUB [<channel> ...]",
            "    Return the numbers of subscribers of channels.",
        ],
    ))
}
