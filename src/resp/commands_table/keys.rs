//! Rows for keys, whatever they hold.

use super::Handler::{Keys, Session};
use super::{ALL, CommandFlags, CommandRow, NONE, ONE, SECOND, TWO};
use crate::resp::commands::{admin, dump, expiry, keys, rename, scan};

const READ: CommandFlags = CommandFlags::READ;
const READ_FAST: CommandFlags = CommandFlags::READ.and(CommandFlags::FAST);
const READ_SLOW: CommandFlags = CommandFlags::READ.and(CommandFlags::SLOW);
const WRITE: CommandFlags = CommandFlags::WRITE;
const WRITE_FAST: CommandFlags = CommandFlags::WRITE.and(CommandFlags::FAST);
const GROW: CommandFlags = CommandFlags::WRITE.and(CommandFlags::GROWS);
const OBJECT: CommandFlags = CommandFlags::READ.and(CommandFlags::CONTAINER);

#[rustfmt::skip]
pub(super) fn rows() -> Vec<CommandRow> {
    vec![
        ("copy", -3, GROW, TWO, Keys(rename::copy), "6.2.0", "Copies a key."),
        ("del", -2, WRITE, ALL, Keys(keys::del), "1.0.0", "Deletes keys."),
        ("dump", 2, READ, ONE, Keys(dump::dump), "2.6.0", "Returns what a key holds as bytes for RESTORE."),
        ("exists", -2, READ_FAST, ALL, Keys(keys::exists), "1.0.0", "Returns how many of the keys exist."),
        ("expire", -3, WRITE_FAST, ONE, Keys(expiry::expire_in), "1.0.0", "Sets in how many seconds a key expires."),
        ("expireat", -3, WRITE_FAST, ONE, Keys(expiry::expireat), "1.2.0", "Sets at which time a key expires."),
        ("expiretime", 2, READ_FAST, ONE, Keys(expiry::expiretime), "7.0.0", "Returns at which time a key expires."),
        ("keys", 2, READ_SLOW, NONE, Keys(scan::keys), "1.0.0", "Returns all keys that match a pattern."),
        ("object", -2, OBJECT, NONE, Session(admin::container), "2.2.3", "Tells about what a key holds."),
        ("object|encoding", 3, READ, SECOND, Keys(keys::object), "2.2.3", "Returns how Redis would store a value."),
        ("object|freq", 3, READ, SECOND, Keys(keys::object), "4.0.0", "Not available."),
        ("object|help", 2, READ, NONE, Keys(keys::object_help), "6.2.0", "Prints a help text."),
        ("object|idletime", 3, READ, SECOND, Keys(keys::object), "2.2.3", "Returns 0."),
        ("object|refcount", 3, READ, SECOND, Keys(keys::object), "2.2.3", "Returns 1."),
        ("persist", 2, WRITE_FAST, ONE, Keys(expiry::persist), "2.2.0", "Makes a key live until it is deleted."),
        ("pexpire", -3, WRITE_FAST, ONE, Keys(expiry::pexpire), "2.6.0", "Sets in how many milliseconds a key expires."),
        ("pexpireat", -3, WRITE_FAST, ONE, Keys(expiry::pexpireat), "2.6.0", "Sets at which time in milliseconds a key expires."),
        ("pexpiretime", 2, READ_FAST, ONE, Keys(expiry::pexpiretime), "7.0.0", "Returns at which time in milliseconds a key expires."),
        ("pttl", 2, READ_FAST, ONE, Keys(expiry::pttl), "2.6.0", "Returns how many milliseconds a key has left."),
        ("randomkey", 1, READ_SLOW, NONE, Keys(keys::randomkey), "1.0.0", "Returns a random key."),
        ("rename", 3, WRITE, TWO, Keys(rename::rename), "1.0.0", "Renames a key, and replaces one that has the name."),
        ("renamenx", 3, WRITE_FAST, TWO, Keys(rename::renamenx), "1.0.0", "Renames a key if no key has the name."),
        ("restore", -4, GROW, ONE, Keys(dump::restore), "2.6.0", "Sets a key to what DUMP has returned."),
        ("scan", -2, READ_SLOW, NONE, Keys(scan::scan), "2.8.0", "Returns some keys, and where to continue."),
        ("touch", -2, READ_FAST, ALL, Keys(keys::exists), "3.2.1", "Returns how many of the keys exist."),
        ("ttl", 2, READ_FAST, ONE, Keys(expiry::ttl), "1.0.0", "Returns how many seconds a key has left."),
        ("type", 2, READ_FAST, ONE, Keys(keys::type_of), "1.0.0", "Returns what a key holds."),
        ("unlink", -2, WRITE_FAST, ALL, Keys(keys::del), "4.0.0", "Deletes keys."),
        ("wait", 3, CommandFlags::EMPTY, NONE, Session(admin::wait), "3.0.0", "Returns how many replicas have the writes so far: none."),
    ]
}
