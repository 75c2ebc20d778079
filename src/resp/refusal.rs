//! Why a command is refused, in the words of Redis where it has some.

use std::borrow::Cow;

use super::reply::Reply;
use crate::error::Error;

/// Why a command has failed.
#[derive(Debug)]
pub(super) enum Refusal {
    /// An error text, with its code.
    Text(Cow<'static, str>),
    /// The store has failed.
    Store(Error),
}

/// What a command returns.
pub(super) type Answer<T = Reply> = Result<T, Refusal>;

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl Refusal {
    pub(super) fn into_reply(self) -> Reply {
        Reply::Error(match self {
            Self::Text(text) => text.into_owned(),
            Self::Store(error) => store_error(&error),
        })
    }
}

/// Returns the text for an error of the store.
pub(super) fn store_error(error: &Error) -> String {
    match error {
        Error::ValueTooLarge { .. } | Error::FileTooLarge { .. } | Error::BatchTooLarge { .. } => {
            format!("ERR string exceeds maximum allowed size (proto-max-bulk-len): {error}")
        }
        Error::NoSpace { .. } => {
            format!("MISCONF The disk is full, so nothing was written: {error}")
        }
        Error::Poisoned { .. } | Error::ReadOnly => {
            format!("MISCONF The store accepts no more writes: {error}")
        }
        Error::Conflict { .. } => format!("TRYAGAIN Other clients kept changing the keys: {error}"),
        _ => format!("ERR {error}"),
    }
}

pub(super) fn refused<T>(text: &'static str) -> Answer<T> {
    Err(Refusal::Text(Cow::Borrowed(text)))
}

pub(super) fn refused_with<T>(text: String) -> Answer<T> {
    Err(Refusal::Text(Cow::Owned(text)))
}

pub(super) fn text(text: &'static str) -> Refusal {
    Refusal::Text(Cow::Borrowed(text))
}

pub(super) const WRONG_TYPE: &str =
    "WRONGTYPE Operation against a key holding the wrong kind of value";
pub(super) const SYNTAX: &str = "ERR syntax error";
pub(super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
pub(super) const NOT_A_FLOAT: &str = "ERR value is not a valid float";
pub(super) const NO_SUCH_KEY: &str = "ERR no such key";
pub(super) const OVERFLOW: &str = "ERR increment or decrement would overflow";
pub(super) const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";

pub(super) const TOO_LARGE: &str = "ERR the replies are too large to be sent at once";

pub(super) fn syntax<T>() -> Answer<T> {
    refused(SYNTAX)
}

/// The text for a wrong number of arguments. A name with a bar is that of a subcommand.
pub(super) fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}
