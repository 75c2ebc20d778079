//! Rows for strings.

use super::Handler::Keys;
use super::{ALL, CommandFlags, CommandRow, ONE, PAIRS};
use crate::resp::commands::{conditions, counters, set, strings};

const READ: CommandFlags = CommandFlags::READ;
const READ_FAST: CommandFlags = CommandFlags::READ.and(CommandFlags::FAST);
const WRITE: CommandFlags = CommandFlags::WRITE.and(CommandFlags::GROWS);
const WRITE_FAST: CommandFlags = WRITE.and(CommandFlags::FAST);
const REMOVE_FAST: CommandFlags = CommandFlags::WRITE.and(CommandFlags::FAST);

#[rustfmt::skip]
pub(super) fn rows() -> Vec<CommandRow> {
    vec![
        ("append", 3, WRITE_FAST, ONE, Keys(strings::append), "2.0.0", "Appends to a string."),
        ("decr", 2, WRITE_FAST, ONE, Keys(counters::decr), "1.0.0", "Takes 1 from a number."),
        ("decrby", 3, WRITE_FAST, ONE, Keys(counters::decrby), "1.0.0", "Takes from a number."),
        ("delex", -2, REMOVE_FAST, ONE, Keys(conditions::delex), "8.4.0", "Deletes a key if its value is as expected."),
        ("digest", 2, READ_FAST, ONE, Keys(conditions::digest), "8.4.0", "Returns a hash of a string."),
        ("get", 2, READ_FAST, ONE, Keys(strings::get), "1.0.0", "Returns a string."),
        ("getdel", 2, REMOVE_FAST, ONE, Keys(strings::getdel), "6.2.0", "Returns a string and deletes it."),
        ("getex", -2, REMOVE_FAST, ONE, Keys(set::getex), "6.2.0", "Returns a string and changes when it expires."),
        ("getrange", 4, READ, ONE, Keys(strings::getrange), "2.4.0", "Returns a part of a string."),
        ("getset", 3, WRITE_FAST, ONE, Keys(strings::getset), "1.0.0", "Returns a string and replaces it."),
        ("incr", 2, WRITE_FAST, ONE, Keys(counters::incr), "1.0.0", "Adds 1 to a number."),
        ("incrby", 3, WRITE_FAST, ONE, Keys(counters::incrby), "1.0.0", "Adds to a number."),
        ("incrbyfloat", 3, WRITE_FAST, ONE, Keys(counters::incrbyfloat), "2.6.0", "Adds to a decimal number."),
        ("mget", -2, READ_FAST, ALL, Keys(strings::mget), "1.0.0", "Returns several strings."),
        ("mset", -3, WRITE, PAIRS, Keys(strings::mset), "1.0.1", "Sets several strings at once."),
        ("msetnx", -3, WRITE, PAIRS, Keys(strings::msetnx), "1.0.1", "Sets several strings if none of the keys exists."),
        ("psetex", 4, WRITE, ONE, Keys(set::psetex), "2.6.0", "Sets a string that expires, in milliseconds."),
        ("set", -3, WRITE, ONE, Keys(set::set), "1.0.0", "Sets a string."),
        ("setex", 4, WRITE, ONE, Keys(set::setex), "2.0.0", "Sets a string that expires, in seconds."),
        ("setnx", 3, WRITE_FAST, ONE, Keys(set::setnx), "1.0.0", "Sets a string if the key does not exist."),
        ("setrange", 4, WRITE, ONE, Keys(strings::setrange), "2.2.0", "Overwrites a part of a string."),
        ("strlen", 2, READ_FAST, ONE, Keys(strings::strlen), "2.2.0", "Returns the size of a string."),
        ("substr", 4, READ, ONE, Keys(strings::getrange), "1.0.0", "Returns a part of a string."),
    ]
}
