//! `SET` and its older forms.

use std::time::Duration;

use bytes::Bytes;

use super::conditions::ValueCondition;
use super::{arg, is, rest};
use crate::resp::events::EventClass;
use crate::resp::holding::Holding;
use crate::resp::keyspace::{Keyspace, Lifespan, check_key};
use crate::resp::refusal::{Answer, NOT_AN_INTEGER, WRONG_TYPE, refused, refused_with, syntax};
use crate::resp::reply::{OK, Reply};
use crate::store::Ttl;
use crate::wire::parse_integer;

/// When a key is set.
#[derive(Debug, Clone)]
enum SetCondition {
    Always,
    IfNew,
    IfExists,
    IfValue(ValueCondition),
}

/// The options of `SET`.
#[derive(Debug)]
struct SetOptions<'a> {
    condition: SetCondition,
    returns_old: bool,
    /// The option that sets it, and its value: `None` if there is none.
    life: Option<(&'a Bytes, &'a [u8])>,
}

/// Maximum time to live, in milliseconds: with the time of any day before the year 3000, the sum is
/// a number of 64 bits.
const LIFESPAN_MAX: i64 = i64::MAX - (1 << 45);

/// Parses a time to live in seconds or milliseconds, as a duration or as a time of day.
pub(super) fn parse_lifespan(name: &str, option: &[u8], value: &[u8]) -> Answer<Lifespan> {
    let Some(number) = parse_integer(value) else { return refused(NOT_AN_INTEGER) };
    let invalid = || format!("ERR invalid expire time in '{name}' command");
    if number <= 0 {
        return refused_with(invalid());
    }
    let in_seconds = is(option, "EX") || is(option, "EXAT");
    let ms = if in_seconds { number.checked_mul(1000) } else { Some(number) };
    let Some(ms) = ms else { return refused_with(invalid()) };
    if is(option, "EXAT") || is(option, "PXAT") {
        return Ok(Lifespan::Until(ms));
    }
    if ms > LIFESPAN_MAX {
        return refused_with(invalid());
    }
    Ok(Lifespan::For(Duration::from_millis(u64::try_from(ms).unwrap_or(0))))
}

/// Returns whether an argument is an option that sets a time to live.
pub(super) fn is_lifespan(option: &[u8]) -> bool {
    ["EX", "PX", "EXAT", "PXAT"].iter().any(|name| is(option, name))
}

impl<'a> SetOptions<'a> {
    fn parse(mut args: &'a [Bytes]) -> Answer<Self> {
        let mut options = Self { condition: SetCondition::Always, returns_old: false, life: None };
        while let [option, after @ ..] = args {
            args = after;
            if is(option, "GET") {
                options.returns_old = true;
            } else if is(option, "KEEPTTL") {
                options.set_life(option, b"")?;
            } else if is(option, "NX") {
                options.set_condition(SetCondition::IfNew)?;
            } else if is(option, "XX") {
                options.set_condition(SetCondition::IfExists)?;
            } else if let [value, after @ ..] = args {
                args = after;
                if is_lifespan(option) {
                    options.set_life(option, value)?;
                } else if let Some(condition) = ValueCondition::parse(option, value)? {
                    options.set_condition(SetCondition::IfValue(condition))?;
                } else {
                    return syntax();
                }
            } else {
                return syntax();
            }
        }
        Ok(options)
    }

    /// Sets what the time to live will be. The same option may come again, and the last one counts.
    fn set_life(&mut self, option: &'a Bytes, value: &'a [u8]) -> Answer<()> {
        match self.life.replace((option, value)) {
            Some((other, _)) if !other.eq_ignore_ascii_case(option) => syntax(),
            _ => Ok(()),
        }
    }

    /// Returns the time to live. Its value is looked at when all options are known to be valid.
    fn life(&self) -> Answer<Lifespan> {
        match self.life {
            None => Ok(Lifespan::OfStore),
            Some((option, _)) if is(option, "KEEPTTL") => Ok(Lifespan::Kept),
            Some((option, value)) => parse_lifespan("set", option, value),
        }
    }

    fn set_condition(&mut self, condition: SetCondition) -> Answer<()> {
        let is_same = matches!(
            (&self.condition, &condition),
            (SetCondition::IfNew, SetCondition::IfNew)
                | (SetCondition::IfExists, SetCondition::IfExists)
        );
        if !is_same && !matches!(self.condition, SetCondition::Always) {
            return syntax();
        }
        self.condition = condition;
        Ok(())
    }
}

pub(in crate::resp) fn set(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let (key, value) = (arg(args, 1), arg(args, 2));
    check_key(key)?;
    if args.len() == 3 {
        put(space, key, value, Lifespan::OfStore)?;
        return Ok(OK);
    }
    let options = SetOptions::parse(rest(args, 3))?;
    let life = options.life()?;
    let is_plain = matches!(options.condition, SetCondition::Always);
    if is_plain && !options.returns_old && life != Lifespan::Kept {
        put(space, key, value, life)?;
        return Ok(OK);
    }
    space.atomically_on(&[key], |space| {
        let old = space.get(key)?;
        if options.returns_old && matches!(old, Some(Holding::Hash(_))) {
            return refused(WRONG_TYPE);
        }
        let is_met = match &options.condition {
            SetCondition::Always => true,
            SetCondition::IfNew => old.is_none(),
            SetCondition::IfExists => old.is_some(),
            SetCondition::IfValue(condition) => match old.clone() {
                // Only a condition on a difference holds for a key that does not exist.
                None => condition.holds_without_value(),
                Some(old) => condition.holds(&old.string()?),
            },
        };
        if is_met {
            put(space, key, value, life)?;
        }
        Ok(match (options.returns_old, old) {
            (true, Some(Holding::String(old))) => old.into_reply(),
            (false, _) if is_met => OK,
            _ => Reply::Null,
        })
    })
}

fn put(space: &mut Keyspace<'_>, key: &Bytes, value: &[u8], life: Lifespan) -> Answer<()> {
    space.put_string(key, value, life)?;
    space.event(EventClass::String, "set", key);
    if matches!(life, Lifespan::For(_) | Lifespan::Until(_)) {
        space.event(EventClass::Generic, "expire", key);
    }
    Ok(())
}

pub(in crate::resp) fn setnx(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let (key, value) = (arg(args, 1), arg(args, 2));
    check_key(key)?;
    space.atomically(|space| {
        let is_new = !space.exists(key)?;
        if is_new {
            put(space, key, value, Lifespan::OfStore)?;
        }
        Ok(Reply::bool(is_new))
    })
}

pub(in crate::resp) fn setex(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let life = parse_lifespan("setex", b"EX", arg(args, 2))?;
    check_key(arg(args, 1))?;
    put(space, arg(args, 1), arg(args, 3), life)?;
    Ok(OK)
}

pub(in crate::resp) fn psetex(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let life = parse_lifespan("psetex", b"PX", arg(args, 2))?;
    check_key(arg(args, 1))?;
    put(space, arg(args, 1), arg(args, 3), life)?;
    Ok(OK)
}

pub(in crate::resp) fn getex(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let key = arg(args, 1);
    let option = match rest(args, 2) {
        [] => return super::strings::get(space, args),
        [option] if is(option, "PERSIST") => None,
        [option, value] if is_lifespan(option) => Some((option, value)),
        _ => return syntax(),
    };
    space.atomically(|space| {
        let Some(string) = space.string(key)? else { return Ok(Reply::Null) };
        let life = match option {
            // A write that changes nothing would fail the transactions of those that watch the key.
            None if !matches!(space.ttl(key)?, Some(Ttl::In(_))) => return Ok(string.into_reply()),
            None => Lifespan::Endless,
            Some((option, value)) => parse_lifespan("getex", option, value)?,
        };
        super::expiry::set_life(space, key, &Holding::String(string.clone()), life)?;
        Ok(string.into_reply())
    })
}
