//! Rows for hashes.

use super::Handler::Keys;
use super::{CommandFlags, CommandRow, ONE};
use crate::resp::commands::{hash_scan, hashes};

const READ: CommandFlags = CommandFlags::READ;
const READ_FAST: CommandFlags = CommandFlags::READ.and(CommandFlags::FAST);
const WRITE_FAST: CommandFlags =
    CommandFlags::WRITE.and(CommandFlags::GROWS).and(CommandFlags::FAST);
const REMOVE_FAST: CommandFlags = CommandFlags::WRITE.and(CommandFlags::FAST);

#[rustfmt::skip]
pub(super) fn rows() -> Vec<CommandRow> {
    vec![
        ("hdel", -3, REMOVE_FAST, ONE, Keys(hashes::hdel), "2.0.0", "Deletes fields of a hash."),
        ("hexists", 3, READ_FAST, ONE, Keys(hashes::hexists), "2.0.0", "Returns whether a field exists."),
        ("hget", 3, READ_FAST, ONE, Keys(hashes::hget), "2.0.0", "Returns a field."),
        ("hgetall", 2, READ, ONE, Keys(hashes::hgetall), "2.0.0", "Returns all fields and their values."),
        ("hincrby", 4, WRITE_FAST, ONE, Keys(hashes::hincrby), "2.0.0", "Adds to a number in a field."),
        ("hincrbyfloat", 4, WRITE_FAST, ONE, Keys(hashes::hincrbyfloat), "2.6.0", "Adds to a decimal number in a field."),
        ("hkeys", 2, READ, ONE, Keys(hashes::hkeys), "2.0.0", "Returns the names of all fields."),
        ("hlen", 2, READ_FAST, ONE, Keys(hashes::hlen), "2.0.0", "Returns the number of fields."),
        ("hmget", -3, READ_FAST, ONE, Keys(hashes::hmget), "2.0.0", "Returns several fields."),
        ("hmset", -4, WRITE_FAST, ONE, Keys(hashes::hmset), "2.0.0", "Sets several fields."),
        ("hrandfield", -2, READ, ONE, Keys(hash_scan::hrandfield), "6.2.0", "Returns random fields."),
        ("hscan", -3, READ, ONE, Keys(hash_scan::hscan), "2.8.0", "Returns some fields, and where to continue."),
        ("hset", -4, WRITE_FAST, ONE, Keys(hashes::hset), "2.0.0", "Sets fields."),
        ("hsetnx", 4, WRITE_FAST, ONE, Keys(hashes::hsetnx), "2.0.0", "Sets a field if it does not exist."),
        ("hstrlen", 3, READ_FAST, ONE, Keys(hashes::hstrlen), "3.2.0", "Returns the size of a field's value."),
        ("hvals", 2, READ, ONE, Keys(hashes::hvals), "2.0.0", "Returns the values of all fields."),
    ]
}
