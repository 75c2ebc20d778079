//! When keys expire.
//!
//! - A key expires at a time of the store's clock, in microseconds. What clients see is in
//!   milliseconds: the time left is rounded up, so that a key that exists has time left.
//! - The fields of a hash expire at the same time as its header, so that nothing of an expired hash
//!   stays behind.

use std::time::Duration;

use bytes::Bytes;

use super::{arg, encoded, integer, is, rest};
use crate::resp::events::EventClass;
use crate::resp::holding::Holding;
use crate::resp::keyspace::{Keyspace, Lifespan, check_key};
use crate::resp::numbers::{ceil_ms, to_ms};
use crate::resp::refusal::{Answer, refused, refused_with};
use crate::resp::reply::Reply;
use crate::store::{Expiry, Ttl};

/// Gives a key another time to live, within a transaction. A time that has passed removes it.
pub(super) fn set_life(
    space: &mut Keyspace<'_>,
    key: &Bytes,
    holding: &Holding,
    life: Lifespan,
) -> Answer<()> {
    let life = match life {
        Lifespan::Until(ms) if ms <= space.now_ms() => {
            space.remove(key)?;
            space.event(EventClass::Generic, "del", key);
            return Ok(());
        }
        // All parts of a hash need the same time.
        Lifespan::For(left) if matches!(holding, Holding::Hash(_)) => {
            Lifespan::Until(space.now_ms().saturating_add(ceil_ms(left)))
        }
        life => life,
    };
    let stored = space.stored(&encoded(key))?;
    if let Holding::Hash(header) = holding {
        for field in space.field_keys(*header)? {
            if let Some(value) = space.stored(&field)? {
                space.put_stored(&field, &value, life)?;
            }
        }
    }
    if let Some(value) = stored {
        space.put(key, &value, life)?;
    }
    let name = if life == Lifespan::Endless { "persist" } else { "expire" };
    space.event(EventClass::Generic, name, key);
    Ok(())
}

/// Under which condition an expiry is changed.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "options that clients combine")]
struct ExpireCondition {
    if_none: bool,
    if_some: bool,
    if_greater: bool,
    if_less: bool,
}

impl ExpireCondition {
    fn parse(args: &[Bytes]) -> Answer<Self> {
        let mut condition = Self::default();
        for option in args {
            let is_set = match option.to_ascii_uppercase().as_slice() {
                b"NX" => &mut condition.if_none,
                b"XX" => &mut condition.if_some,
                b"GT" => &mut condition.if_greater,
                b"LT" => &mut condition.if_less,
                _ => {
                    let option = String::from_utf8_lossy(option).into_owned();
                    return refused_with(format!("ERR Unsupported option {option}"));
                }
            };
            *is_set = true;
        }
        if condition.if_none && (condition.if_some || condition.if_greater || condition.if_less) {
            return refused("ERR NX and XX, GT or LT options at the same time are not compatible");
        }
        if condition.if_greater && condition.if_less {
            return refused("ERR GT and LT options at the same time are not compatible");
        }
        Ok(condition)
    }

    /// Compares the old time with the new one. `None` as the old time means that the key does not
    /// expire.
    fn holds(&self, old: Option<i64>, new: i64) -> bool {
        !(self.if_none && old.is_some()
            || self.if_some && old.is_none()
            || self.if_greater && old.is_none_or(|old| new <= old)
            || self.if_less && old.is_some_and(|old| new >= old))
    }
}

/// Sets an expiry. `unit` is the number of milliseconds in the command's unit.
fn expire(space: &mut Keyspace<'_>, args: &[Bytes], name: &str, unit: i64, at: bool) -> Answer {
    let condition = ExpireCondition::parse(rest(args, 3))?;
    let (key, number) = (arg(args, 1), integer(arg(args, 2))?);
    let invalid = || format!("ERR invalid expire time in '{name}' command");
    let base = if at { 0 } else { space.now_ms() };
    let Some(time) = number.checked_mul(unit).and_then(|ms| ms.checked_add(base)) else {
        return refused_with(invalid());
    };
    space.atomically_on(&[key], |space| {
        let Some(holding) = space.get(key)? else { return Ok(Reply::Integer(0)) };
        let is_met = condition.holds(expiry_ms(space, key)?.filter(|ms| *ms >= 0), time);
        if is_met {
            let life = match u64::try_from(number.saturating_mul(unit)) {
                // A time to live counts on the store's clock, which never goes backwards.
                Ok(left) if !at && left > 0 => Lifespan::For(Duration::from_millis(left)),
                _ => Lifespan::Until(time),
            };
            set_life(space, key, &holding, life)?;
        }
        Ok(Reply::bool(is_met))
    })
}

pub(in crate::resp) fn expire_in(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    expire(space, args, "expire", 1000, false)
}

pub(in crate::resp) fn pexpire(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    expire(space, args, "pexpire", 1, false)
}

pub(in crate::resp) fn expireat(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    expire(space, args, "expireat", 1000, true)
}

pub(in crate::resp) fn pexpireat(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    expire(space, args, "pexpireat", 1, true)
}

pub(in crate::resp) fn persist(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let key = arg(args, 1);
    space.atomically_on(&[key], |space| {
        let expires = matches!(space.ttl(key)?, Some(Ttl::In(_)));
        if expires && let Some(holding) = space.get(key)? {
            set_life(space, key, &holding, Lifespan::Endless)?;
        }
        Ok(Reply::bool(expires))
    })
}

/// Returns the time left in milliseconds, -1 if a key does not expire, or -2 if there is none.
fn ttl_ms(space: &Keyspace<'_>, key: &[u8]) -> Answer<i64> {
    Ok(match space.ttl(key)? {
        None => -2,
        Some(Ttl::In(left)) => ceil_ms(left),
        Some(_) => -1,
    })
}

/// Returns when a key expires, in milliseconds since the epoch; -1 if never, `None` if it does not
/// exist.
pub(in crate::resp) fn expiry_ms(space: &Keyspace<'_>, key: &[u8]) -> Answer<Option<i64>> {
    if check_key(key).is_err() {
        return Ok(None);
    }
    let key = encoded(key);
    let expiry = match &space.tx {
        Some(tx) => tx.expiry(key)?,
        None => space.database.store.expiry(key)?,
    };
    Ok(expiry.map(|expiry| match expiry {
        Expiry::At(time) => to_ms(time),
        Expiry::Never => -1,
    }))
}

fn in_seconds(ms: i64) -> i64 {
    if ms < 0 { ms } else { ms.saturating_add(500) / 1000 }
}

pub(in crate::resp) fn ttl(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    Ok(Reply::Integer(in_seconds(ttl_ms(space, arg(args, 1))?)))
}

pub(in crate::resp) fn pttl(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    Ok(Reply::Integer(ttl_ms(space, arg(args, 1))?))
}

pub(in crate::resp) fn expiretime(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    let ms = expiry_ms(space, arg(args, 1))?.unwrap_or(-2);
    Ok(Reply::Integer(in_seconds(ms)))
}

pub(in crate::resp) fn pexpiretime(space: &mut Keyspace<'_>, args: &[Bytes]) -> Answer {
    Ok(Reply::Integer(expiry_ms(space, arg(args, 1))?.unwrap_or(-2)))
}

/// Returns the lifespan that a copy of a key gets.
pub(super) fn life_of(space: &Keyspace<'_>, key: &[u8]) -> Answer<Lifespan> {
    Ok(match expiry_ms(space, key)? {
        Some(ms) if ms >= 0 => Lifespan::Until(ms),
        _ => Lifespan::Endless,
    })
}

/// Returns whether an option of `RESTORE` or `COPY` is there.
pub(super) fn has_option(args: &[Bytes], name: &str) -> bool {
    args.iter().any(|option| is(option, name))
}
