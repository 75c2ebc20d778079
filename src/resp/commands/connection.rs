//! Greeting, authenticating, choosing a database, and leaving.

use std::sync::Arc;

use bytes::Bytes;

use super::keys::database_number;
use super::{arg, is, rest};
use crate::replica::Replica;
use crate::resp::clients_names::check_name;
use crate::resp::refusal::{Answer, refused, refused_with, syntax, wrong_arity};
use crate::resp::reply::{OK, Protocol, Reply};
use crate::resp::session::Session;
use crate::wire::parse_integer;

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

pub(in crate::resp) fn ping(session: &mut Session, args: &[Bytes]) -> Answer {
    let only_messages = session.protocol == Protocol::Resp2 && session.is_subscriber();
    match (rest(args, 1), only_messages) {
        ([], false) => Ok(Reply::Simple("PONG")),
        ([text], false) => Ok(Reply::Bulk(text.clone())),
        ([], true) => Ok(Reply::Array(vec![Reply::Text("pong"), Reply::Text("")])),
        ([text], true) => Ok(Reply::Array(vec![Reply::Text("pong"), Reply::Bulk(text.clone())])),
        _ => refused_with(wrong_arity("ping")),
    }
}

pub(in crate::resp) fn echo(_session: &mut Session, args: &[Bytes]) -> Answer {
    Ok(Reply::Bulk(arg(args, 1).clone()))
}

pub(in crate::resp) fn quit(session: &mut Session, _args: &[Bytes]) -> Answer {
    session.is_closing = true;
    Ok(OK)
}

pub(in crate::resp) fn reset(session: &mut Session, _args: &[Bytes]) -> Answer {
    session.leave();
    session.reads_stale = false;
    session.set_protocol(Protocol::Resp2);
    session.database = session.state.databases.get(0)?;
    session.is_authenticated = !session.state.parameters.has_password();
    session.peer.view().0.name.clear();
    Ok(Reply::Simple("RESET"))
}

pub(in crate::resp) fn select(session: &mut Session, args: &[Bytes]) -> Answer {
    let number = database_number(arg(args, 1))?;
    if number != session.database.number {
        let databases = Arc::clone(&session.state.databases);
        // The store may have to be opened.
        session.database = tokio::task::block_in_place(|| databases.get(number))?;
    }
    Ok(OK)
}

/// Checks a user and a password.
fn log_in(session: &mut Session, user: &[u8], password: &[u8]) -> Answer<()> {
    let is_right = session.state.parameters.is_password(password) && user == b"default";
    if is_right {
        session.is_authenticated = true;
        return Ok(());
    }
    refused(WRONG_PASSWORD)
}

pub(in crate::resp) fn auth(session: &mut Session, args: &[Bytes]) -> Answer {
    match rest(args, 1) {
        [password] if session.state.parameters.has_password() => {
            log_in(session, b"default", password)?;
        }
        [_] => {
            return refused(
                "ERR AUTH <password> called without any password configured for the default \
                 user. Are you sure your configuration is correct?",
            );
        }
        [user, password] => log_in(session, user, password)?,
        _ => return syntax(),
    }
    Ok(OK)
}

pub(in crate::resp) fn hello(session: &mut Session, args: &[Bytes]) -> Answer {
    let mut protocol = session.protocol;
    let mut options = rest(args, 1);
    if let [version, after @ ..] = options {
        options = after;
        protocol = match parse_integer(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return refused("NOPROTO unsupported protocol version"),
            None => {
                return refused("ERR Protocol version is not an integer or out of range");
            }
        };
    }
    let (mut login, mut name) = (None, None);
    while let [option, after @ ..] = options {
        options = match after {
            [user, password, after @ ..] if is(option, "AUTH") => {
                login = Some((user, password));
                after
            }
            [given, after @ ..] if is(option, "SETNAME") => {
                name = Some(check_name(given, "Client names")?);
                after
            }
            _ => {
                let option = String::from_utf8_lossy(option);
                return refused_with(format!("ERR Syntax error in HELLO option '{option}'"));
            }
        };
    }
    if let Some((user, password)) = login {
        log_in(session, user, password)?;
    }
    if session.is_stranger() {
        return refused(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        );
    }
    if let Some(name) = name {
        session.peer.view().0.name = name;
    }
    session.set_protocol(protocol);
    let version = if protocol == Protocol::Resp3 { 3 } else { 2 };
    let replica = session.state.options.replica.as_ref();
    let follows = replica.is_some_and(Replica::is_follower);
    Ok(Reply::Map(vec![
        (Reply::Text("server"), Reply::Text("redis")),
        (Reply::Text("version"), Reply::Text(crate::resp::REDIS_VERSION)),
        (Reply::Text("proto"), Reply::Integer(version)),
        (Reply::Text("id"), Reply::count(session.peer.id)),
        (Reply::Text("mode"), Reply::Text(session.state.mode())),
        (Reply::Text("role"), Reply::Text(if follows { "replica" } else { "master" })),
        (Reply::Text("modules"), Reply::Array(Vec::new())),
    ]))
}
