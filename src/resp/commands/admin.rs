//! Running the server: parameters, durability, logs, and stopping.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::{arg, help, integer, is, rest};

use crate::replica::Replica;
use crate::resp::glob;
use crate::resp::numbers::parse_float;
use crate::resp::refusal::{Answer, refused, refused_with, syntax, wrong_arity};
use crate::resp::reply::{OK, Reply};
use crate::resp::session::Session;
use crate::wire::parse_integer;

/// Maximum duration of `DEBUG SLEEP`.
const SLEEP_MAX: f64 = 60.0;
/// How often `DEBUG SLEEP` looks whether somebody waits for it.
const SLEEP_PART: Duration = Duration::from_millis(20);
/// Default number of commands that `SLOWLOG GET` returns.
const SLOW_COUNT: i64 = 10;

/// Is never called: the table sends the client to a subcommand.
pub(in crate::resp) fn container(_session: &mut Session, args: &[Bytes]) -> Answer {
    refused_with(wrong_arity(&String::from_utf8_lossy(arg(args, 0))))
}

pub(in crate::resp) fn ok(_session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(OK)
}

pub(in crate::resp) fn nothing(_session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(Reply::Array(Vec::new()))
}

pub(in crate::resp) fn script_exists(_session: &mut Session, args: &[Bytes]) -> Answer {
    Ok(Reply::Array(rest(args, 2).iter().map(|_| Reply::Integer(0)).collect()))
}

pub(in crate::resp) fn wait(_session: &mut Session, args: &[Bytes]) -> Answer {
    let (replicas, timeout) = (integer(arg(args, 1))?, integer(arg(args, 2)));
    match timeout {
        Ok(0..) => {}
        Ok(_) => return refused("ERR timeout is negative"),
        Err(_) => return refused("ERR timeout is not an integer or out of range"),
    }
    if replicas < 0 {
        return refused("ERR value is out of range, must be positive");
    }
    Ok(Reply::Integer(0))
}

pub(in crate::resp) fn config_get(session: &mut Session, args: &[Bytes]) -> Answer {
    let found = session.state.parameters.find(rest(args, 2)).into_iter();
    let pair = |(name, value): (&'static str, String)| (Reply::Text(name), Reply::bulk(value));
    Ok(Reply::Map(found.map(pair).collect()))
}

pub(in crate::resp) fn config_set(session: &mut Session, args: &[Bytes]) -> Answer {
    let pairs = super::pairs("config|set", rest(args, 2))?;
    let state = Arc::clone(&session.state);
    for (at, (name, value)) in pairs.iter().enumerate() {
        state.parameters.check(name, value)?;
        if pairs.iter().take(at).any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            let name = String::from_utf8_lossy(name);
            return refused_with(format!(
                "ERR CONFIG SET failed (possibly related to argument '{name}') - duplicate \
                 parameter"
            ));
        }
    }
    for (name, value) in pairs {
        state.parameters.set(name, value);
    }
    let limit = state.parameters.tracked_max.load(Ordering::Relaxed);
    state.tracker.limit(limit, &state.peers);
    state.databases.look();
    Ok(OK)
}

pub(in crate::resp) fn config_resetstat(session: &mut Session, _args: &[Bytes]) -> Answer {
    session.state.counts.reset();
    Ok(OK)
}

pub(in crate::resp) fn config_rewrite(_session: &mut Session, _args: &[Bytes]) -> Answer {
    refused("ERR The server is running without a config file")
}

pub(in crate::resp) fn config_help(_session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(help(
        "CONFIG",
        &[
            "GET <pattern>",
            "    Return parameters that match <pattern>, and their values.",
            "SET <directive> <value>",
            "    Change a parameter until the server ends.",
            "RESETSTAT",
            "    Begin to count again.",
        ],
    ))
}

/// Makes the writes of all databases durable.
fn sync(session: &Session) -> Answer<()> {
    for database in session.state.databases.open() {
        database.store.sync()?;
    }
    session.state.note_save();
    Ok(())
}

pub(in crate::resp) fn save(session: &mut Session, _args: &[Bytes]) -> Answer {
    sync(session)?;
    Ok(OK)
}

pub(in crate::resp) fn bgsave(session: &mut Session, args: &[Bytes]) -> Answer {
    match rest(args, 1) {
        [] => {}
        [option] if is(option, "SCHEDULE") => {}
        _ => return syntax(),
    }
    sync(session)?;
    Ok(Reply::Simple("Background saving started"))
}

pub(in crate::resp) fn bgrewriteaof(_session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(Reply::Simple("Background append only file rewriting started"))
}

pub(in crate::resp) fn lastsave(session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(Reply::count(session.state.last_save.load(Ordering::Relaxed) / 1000))
}

pub(in crate::resp) fn shutdown(session: &mut Session, args: &[Bytes]) -> Answer {
    let known = ["SAVE", "NOSAVE", "NOW", "FORCE"];
    let mut saves = true;
    for option in rest(args, 1) {
        if is(option, "ABORT") {
            return refused("ERR No shutdown in progress.");
        }
        if !known.iter().any(|name| is(option, name)) {
            return syntax();
        }
        saves &= !is(option, "NOSAVE");
    }
    if saves {
        sync(session)?;
    }
    session.is_closing = true;
    session.state.stop.send_replace(true);
    Ok(Reply::Silence)
}

pub(in crate::resp) fn role(session: &mut Session, _args: &[Bytes]) -> Answer {
    let replica = session.state.options.replica.as_ref();
    if let Some(replica) = replica.filter(|replica| replica.is_follower()) {
        let (host, port) = replica.leader_address();
        let state = match (replica.is_connected(), replica.is_resyncing()) {
            (_, true) => "sync",
            (true, false) => "connected",
            (false, false) => "connect",
        };
        return Ok(Reply::Array(vec![
            Reply::Text("slave"),
            Reply::bulk(host.to_owned()),
            Reply::Integer(port.into()),
            Reply::Text(state),
            Reply::Integer(super::info::offset(replica)),
        ]));
    }
    Ok(Reply::Array(vec![Reply::Text("master"), Reply::Integer(0), Reply::Array(Vec::new())]))
}

pub(in crate::resp) fn time(_session: &mut Session, _args: &[Bytes]) -> Answer {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let parts = [since.as_secs().to_string(), since.subsec_micros().to_string()];
    Ok(Reply::Array(parts.into_iter().map(Reply::bulk).collect()))
}

pub(in crate::resp) fn monitor(session: &mut Session, _args: &[Bytes]) -> Answer {
    session.is_monitor = true;
    session.state.hub.monitor(&session.peer);
    Ok(OK)
}

pub(in crate::resp) fn slowlog_get(session: &mut Session, args: &[Bytes]) -> Answer {
    let count = match rest(args, 2) {
        [] => SLOW_COUNT,
        [count] => match parse_integer(count) {
            Some(count @ -1..) => count,
            _ => return refused("ERR count should be greater than or equal to -1"),
        },
        _ => return refused_with(wrong_arity("slowlog|get")),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let entries = session.state.counts.slow(count).into_iter().map(|entry| {
        Reply::Array(vec![
            Reply::count(entry.id),
            Reply::Integer(entry.time),
            Reply::count(entry.micros),
            Reply::Array(entry.args.into_iter().map(Reply::bulk).collect()),
            Reply::bulk(entry.address),
            Reply::bulk(entry.name),
        ])
    });
    Ok(Reply::Array(entries.collect()))
}

pub(in crate::resp) fn slowlog_len(session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(Reply::count(session.state.counts.slow_len()))
}

pub(in crate::resp) fn slowlog_reset(session: &mut Session, _args: &[Bytes]) -> Answer {
    session.state.counts.reset_slow();
    Ok(OK)
}

pub(in crate::resp) fn slowlog_help(_session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(help(
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    Return the commands that took long, newest first. Default: 10; -1 means all.",
            "LEN",
            "    Return how many there are.",
            "RESET",
            "    Forget them.",
        ],
    ))
}

pub(in crate::resp) fn memory_doctor(_session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(Reply::Verbatim("Values lie in mapped files, which the system caches.".to_owned()))
}

pub(in crate::resp) fn memory_help(_session: &mut Session, _args: &[Bytes]) -> Answer {
    Ok(help(
        "MEMORY",
        &[
            "DOCTOR",
            "    Has no advice.",
            "PURGE",
            "    Accepted, without an effect.",
            "USAGE <key> [SAMPLES <count>]",
            "    Return how many bytes <key> and its value take.",
        ],
    ))
}

/// Sleeps, but not on while a follower waits for this client so that it can fill its store, or
/// while the server waits for it to end.
fn sleep(session: &Session, duration: Duration) {
    let replica = session.state.options.replica.as_ref().filter(|_| session.pass.is_some());
    let until = Instant::now() + duration;
    while !session.state.is_stopped() && !replica.is_some_and(Replica::is_loading) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(SLEEP_PART));
    }
}

pub(in crate::resp) fn debug(session: &mut Session, args: &[Bytes]) -> Answer {
    match rest(args, 1) {
        [subcommand, seconds] if is(subcommand, "SLEEP") => {
            let seconds = parse_float(seconds).unwrap_or(0.0).clamp(0.0, SLEEP_MAX);
            sleep(session, Duration::from_secs_f64(seconds));
            Ok(OK)
        }
        [subcommand, pattern, text] if is(subcommand, "STRINGMATCH-LEN") => {
            let _is_match = glob::matches(pattern, text);
            Ok(OK)
        }
        [subcommand, text] if is(subcommand, "ERROR") => {
            refused_with(String::from_utf8_lossy(text).into_owned())
        }
        [subcommand, ..]
            if ["SET-ACTIVE-EXPIRE", "PAUSE-CRON", "JMAP"].iter().any(|it| is(subcommand, it)) =>
        {
            Ok(OK)
        }
        // Leaves nothing behind: everything is in the store already.
        [subcommand, ..] if is(subcommand, "RELOAD") || is(subcommand, "LOADAOF") => {
            sync(session)?;
            Ok(OK)
        }
        [subcommand, ..] => {
            let subcommand = String::from_utf8_lossy(subcommand);
            refused_with(format!(
                "ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try DEBUG \
                 HELP."
            ))
        }
        [] => refused_with(wrong_arity("debug")),
    }
}
