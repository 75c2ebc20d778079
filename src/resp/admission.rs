//! What is checked before a command runs: whether it exists, has enough arguments, and may run now.

use std::fmt::Write;

use bytes::Bytes;

use super::commands_table::{CommandFlags, CommandSpec, Handler, table, unsupported};
use super::refusal::wrong_arity;
use super::reply::{Protocol, Reply};
use super::session::Session;

/// Maximum size of the arguments that an error repeats.
const REPEATED_MAX: usize = 128;

/// Maximum size of the name of a command.
const NAME_SIZE_MAX: usize = 32;

/// A command that was refused: its place in the table if it is known, and why.
type Refused = (Option<usize>, Reply);

fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace(['\r', '\n'], " ")
}

/// Cuts a text to a number of bytes at most.
fn cut(text: &[u8], size: usize) -> &[u8] {
    text.get(..size.min(text.len())).unwrap_or_default()
}

fn unknown_command(name: &[u8], args: &[Bytes]) -> Reply {
    let mut shown = String::new();
    for arg in args.iter().skip(1) {
        if shown.len() >= REPEATED_MAX {
            break;
        }
        let arg = printable(cut(arg, REPEATED_MAX - shown.len()));
        let _ = write!(shown, "'{arg}' ");
    }
    let name = printable(cut(name, REPEATED_MAX));
    Reply::Error(format!("ERR unknown command '{name}', with args beginning with: {shown}"))
}

/// Returns a name in lower case, or nothing if no command has such a long name.
fn lower_case<'b>(name: &[u8], buffer: &'b mut [u8; NAME_SIZE_MAX]) -> &'b str {
    let Some(lower) = buffer.get_mut(..name.len()) else { return "" };
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).unwrap_or_default()
}

/// Finds a command in the table, or says why there is none.
pub(super) fn find(args: &[Bytes]) -> Result<(usize, &'static CommandSpec), Reply> {
    let name = args.first().map_or(&b""[..], |name| &**name);
    let mut buffer = [0; NAME_SIZE_MAX];
    let lower = lower_case(name, &mut buffer);
    // A subcommand has no name of its own.
    let known = if lower.contains('|') { None } else { table().find(lower) };
    let Some((at, spec)) = known else {
        if let Some(what) = unsupported(lower) {
            let text = format!("ERR '{lower}' is not supported: this server has no {what}");
            return Err(Reply::Error(text));
        }
        return Err(unknown_command(name, args));
    };
    let Some(subcommand) = args.get(1).filter(|_| spec.is_container()) else {
        return Ok((at, spec));
    };
    let shown = subcommand.to_ascii_lowercase();
    let full = format!("{lower}|{}", String::from_utf8_lossy(&shown));
    table().find(&full).ok_or_else(|| {
        let subcommand = printable(cut(subcommand, REPEATED_MAX));
        let container = lower.to_ascii_uppercase();
        Reply::Error(format!("ERR unknown subcommand '{subcommand}'. Try {container} HELP."))
    })
}

/// Returns whether a line comes from a browser or another client of HTTP: a request that posts, or
/// the header that every request has. A web page can make a browser send such a request to any
/// port, with commands in its body. So nothing after the line may run.
pub(super) fn is_http(args: &[Bytes]) -> bool {
    let name = args.first().map_or(&b""[..], |name| &**name);
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

impl Session {
    /// Decides whether a command may run.
    pub(super) fn admit(&self, args: &[Bytes]) -> Result<(usize, &'static CommandSpec), Refused> {
        let (at, spec) = find(args).map_err(|reply| (None, reply))?;
        let refuse = |text: String| Err((Some(at), Reply::Error(text)));
        if !spec.accepts(args.len()) {
            return refuse(wrong_arity(spec.name));
        }
        if self.is_stranger() && !spec.flags.has(CommandFlags::NO_AUTH) {
            return refuse("NOAUTH Authentication required.".to_owned());
        }
        let replica = self.state.options.replica.as_ref().filter(|it| it.is_follower());
        let is_write = spec.flags.has(CommandFlags::WRITE);
        if let Some(replica) = replica.filter(|_| is_write) {
            let leader = replica.leader();
            return refuse(format!(
                "READONLY You can't write against a read only replica. Its leader is {leader}"
            ));
        }
        // `EXEC` runs what was queued before.
        let is_of_keys = matches!(spec.run, Handler::Keys(_)) || spec.name == "exec";
        if (is_of_keys || is_write || spec.flags.has(CommandFlags::READ)) && self.is_kept_out() {
            return refuse("LOADING The store is receiving all of its leader's data".to_owned());
        }
        if self.queue.is_some() && spec.flags.has(CommandFlags::NO_MULTI) {
            return refuse("ERR Command not allowed inside a transaction".to_owned());
        }
        let only_messages = self.protocol == Protocol::Resp2 && self.is_subscriber();
        if only_messages && !spec.flags.has(CommandFlags::FOR_SUBSCRIBERS) {
            let name = spec.name;
            return refuse(format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT \
                 / RESET are allowed in this context"
            ));
        }
        Ok((at, spec))
    }
}
