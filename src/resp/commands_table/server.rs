//! Rows for connections, for the server, for publishing, and for transactions.

use super::Handler::{Keys, Session};
use super::{CommandFlags, CommandRow, NONE, SECOND};
use crate::resp::commands::{
    admin, caching, clients, cluster, connection, describe, info, keys, publish, transactions,
};

const EMPTY: CommandFlags = CommandFlags::EMPTY;
const FAST: CommandFlags = CommandFlags::FAST;
const BOX: CommandFlags = CommandFlags::CONTAINER;
const ADMIN: CommandFlags = CommandFlags::ADMIN;
const ADMIN_BOX: CommandFlags = CommandFlags::ADMIN.and(CommandFlags::CONTAINER);
const SECRET: CommandFlags = CommandFlags::FAST
    .and(CommandFlags::NO_AUTH)
    .and(CommandFlags::NO_MONITOR)
    .and(CommandFlags::NO_SLOW_LOG);
const ANYWHERE: CommandFlags = CommandFlags::FAST.and(CommandFlags::FOR_SUBSCRIBERS);
const LAST: CommandFlags = ANYWHERE.and(CommandFlags::NO_AUTH).and(CommandFlags::IN_QUEUE_RUNS);
const LISTEN: CommandFlags =
    CommandFlags::PUBSUB.and(CommandFlags::FOR_SUBSCRIBERS).and(CommandFlags::NO_MULTI);
const AT_ONCE: CommandFlags = CommandFlags::FAST.and(CommandFlags::IN_QUEUE_RUNS);
const FLUSH: CommandFlags = CommandFlags::WRITE.and(CommandFlags::SLOW);

#[rustfmt::skip]
pub(super) fn connection() -> Vec<CommandRow> {
    vec![
        ("auth", -2, SECRET, NONE, Session(connection::auth), "1.0.0", "Authenticates a client."),
        ("client", -2, BOX, NONE, Session(admin::container), "2.4.0", "Tells about clients, and sets how one is served."),
        ("client|caching", 3, EMPTY, NONE, Session(caching::caching), "6.0.0", "Says whether the next command is tracked."),
        ("client|getname", 2, EMPTY, NONE, Session(clients::getname), "2.6.9", "Returns the name of the client."),
        ("client|getredir", 2, EMPTY, NONE, Session(caching::getredir), "6.0.0", "Returns which client is told of changes."),
        ("client|help", 2, EMPTY, NONE, Session(clients::help_text), "5.0.0", "Prints a help text."),
        ("client|id", 2, EMPTY, NONE, Session(clients::id), "5.0.0", "Returns the number of the client."),
        ("client|info", 2, EMPTY, NONE, Session(clients::info), "6.2.0", "Tells about the client."),
        ("client|kill", -3, ADMIN, NONE, Session(clients::kill), "2.4.0", "Disconnects clients."),
        ("client|list", -2, ADMIN, NONE, Session(clients::list), "2.4.0", "Tells about all clients."),
        ("client|no-evict", 3, ADMIN, NONE, Session(clients::on_or_off), "7.0.0", "Accepted, without an effect."),
        ("client|no-touch", 3, EMPTY, NONE, Session(clients::on_or_off), "7.2.0", "Accepted, without an effect."),
        ("client|reply", 3, EMPTY, NONE, Session(clients::reply), "3.2.0", "Says which replies the client wants."),
        ("client|setinfo", 4, EMPTY, NONE, Session(clients::setinfo), "7.2.0", "Tells the name or the version of the client's library."),
        ("client|setname", 3, EMPTY, NONE, Session(clients::setname), "2.6.9", "Gives the client a name."),
        ("client|tracking", -3, EMPTY, NONE, Session(caching::tracking), "6.0.0", "Begins or ends to tell the client of changed keys."),
        ("client|trackinginfo", 2, EMPTY, NONE, Session(caching::trackinginfo), "6.2.0", "Tells how the client tracks keys."),
        ("client|unblock", -3, ADMIN, NONE, Session(clients::unblock), "5.0.0", "Returns 0, since no command blocks."),
        ("echo", 2, FAST, NONE, Session(connection::echo), "1.0.0", "Returns its argument."),
        ("hello", -1, SECRET, NONE, Session(connection::hello), "6.0.0", "Chooses a version of the protocol."),
        ("ping", -1, ANYWHERE, NONE, Session(connection::ping), "1.0.0", "Returns PONG."),
        ("quit", -1, LAST, NONE, Session(connection::quit), "1.0.0", "Ends the connection."),
        ("reset", 1, LAST, NONE, Session(connection::reset), "6.2.0", "Makes the connection as it was in the beginning."),
        ("select", 2, FAST, NONE, Session(connection::select), "1.0.0", "Chooses a database."),
    ]
}

#[rustfmt::skip]
pub(super) fn server() -> Vec<CommandRow> {
    vec![
        ("bgrewriteaof", 1, ADMIN, NONE, Session(admin::bgrewriteaof), "1.0.0", "Starts nothing: merges run by themselves."),
        ("bgsave", -1, ADMIN.and(CommandFlags::SLOW), NONE, Session(admin::bgsave), "1.0.0", "Makes all writes durable."),
        ("command", -1, BOX, NONE, Session(describe::all), "2.8.13", "Tells about all commands."),
        ("command|count", 2, EMPTY, NONE, Session(describe::count), "2.8.13", "Returns the number of commands."),
        ("command|docs", -2, EMPTY, NONE, Session(describe::docs), "7.0.0", "Describes commands."),
        ("command|getkeys", -3, EMPTY, NONE, Session(describe::getkeys), "2.8.13", "Returns the keys of a command."),
        ("command|getkeysandflags", -3, EMPTY, NONE, Session(describe::getkeysandflags), "7.0.0", "Returns the keys of a command, and what is done to them."),
        ("command|help", 2, EMPTY, NONE, Session(describe::help_text), "5.0.0", "Prints a help text."),
        ("command|info", -2, EMPTY, NONE, Session(describe::info), "2.8.13", "Tells about commands."),
        ("command|list", -2, EMPTY, NONE, Session(describe::list), "7.0.0", "Returns the names of commands."),
        ("config", -2, ADMIN_BOX, NONE, Session(admin::container), "2.0.0", "Shows and changes parameters."),
        ("config|get", -3, ADMIN, NONE, Session(admin::config_get), "2.0.0", "Shows parameters."),
        ("config|help", 2, ADMIN, NONE, Session(admin::config_help), "5.0.0", "Prints a help text."),
        ("config|resetstat", 2, ADMIN, NONE, Session(admin::config_resetstat), "2.0.0", "Begins to count again."),
        ("config|rewrite", 2, ADMIN, NONE, Session(admin::config_rewrite), "2.8.0", "Fails: there is no configuration file."),
        ("config|set", -4, ADMIN, NONE, Session(admin::config_set), "2.0.0", "Changes parameters."),
        ("dbsize", 1, CommandFlags::READ.and(CommandFlags::SLOW), NONE, Keys(keys::dbsize), "1.0.0", "Returns the number of keys."),
        ("debug", -2, ADMIN.and(CommandFlags::SLOW), NONE, Session(admin::debug), "1.0.0", "For tests."),
        ("flushall", -1, FLUSH, NONE, Keys(keys::flushall), "1.0.0", "Removes all keys of all databases."),
        ("flushdb", -1, FLUSH, NONE, Keys(keys::flushdb), "1.0.0", "Removes all keys of the database."),
        ("function", -2, BOX, NONE, Session(admin::container), "7.0.0", "There are no functions."),
        ("function|flush", -2, EMPTY, NONE, Session(admin::ok), "7.0.0", "Removes all functions: there are none."),
        ("function|list", -2, EMPTY, NONE, Session(admin::nothing), "7.0.0", "Returns all functions: none."),
        ("info", -1, CommandFlags::SLOW, NONE, Session(info::info), "1.0.0", "Tells about the server."),
        ("lastsave", 1, FAST, NONE, Session(admin::lastsave), "1.0.0", "Returns when SAVE was last run."),
        ("memory", -2, BOX, NONE, Session(admin::container), "4.0.0", "Tells about memory."),
        ("memory|doctor", 2, EMPTY, NONE, Session(admin::memory_doctor), "4.0.0", "Has no advice."),
        ("memory|help", 2, EMPTY, NONE, Session(admin::memory_help), "4.0.0", "Prints a help text."),
        ("memory|purge", 2, EMPTY, NONE, Session(admin::ok), "4.0.0", "Accepted, without an effect."),
        ("memory|usage", -3, CommandFlags::READ, SECOND, Keys(keys::memory_usage), "4.0.0", "Returns how many bytes a key takes."),
        ("monitor", 1, ADMIN.and(CommandFlags::NO_MULTI), NONE, Session(admin::monitor), "1.0.0", "Shows all commands as they run."),
        ("role", 1, FAST, NONE, Session(admin::role), "2.8.12", "Returns the role in a replication."),
        ("save", 1, ADMIN.and(CommandFlags::SLOW).and(CommandFlags::NO_MULTI), NONE, Session(admin::save), "1.0.0", "Makes all writes durable."),
        ("script", -2, BOX, NONE, Session(admin::container), "2.6.0", "There are no scripts."),
        ("script|exists", -3, EMPTY, NONE, Session(admin::script_exists), "2.6.0", "Returns which scripts exist: none."),
        ("script|flush", -2, EMPTY, NONE, Session(admin::ok), "2.6.0", "Removes all scripts: there are none."),
        ("shutdown", -1, ADMIN.and(CommandFlags::NO_MULTI).and(CommandFlags::SLOW), NONE, Session(admin::shutdown), "1.0.0", "Stops the server."),
        ("slowlog", -2, ADMIN_BOX, NONE, Session(admin::container), "2.2.12", "Tells which commands took long."),
        ("slowlog|get", -2, ADMIN, NONE, Session(admin::slowlog_get), "2.2.12", "Returns the commands that took long."),
        ("slowlog|help", 2, ADMIN, NONE, Session(admin::slowlog_help), "6.2.0", "Prints a help text."),
        ("slowlog|len", 2, ADMIN, NONE, Session(admin::slowlog_len), "2.2.12", "Returns how many commands took long."),
        ("slowlog|reset", 2, ADMIN, NONE, Session(admin::slowlog_reset), "2.2.12", "Forgets which commands took long."),
        ("time", 1, FAST, NONE, Session(admin::time), "2.6.0", "Returns the time of day."),
    ]
}

#[rustfmt::skip]
pub(super) fn cluster() -> Vec<CommandRow> {
    vec![
        ("asking", 1, FAST, NONE, Session(cluster::asking), "3.0.0", "Accepted: no slot is on its way to another node."),
        ("cluster", -2, BOX, NONE, Session(admin::container), "3.0.0", "Tells about the cluster."),
        ("cluster|countkeysinslot", 3, CommandFlags::SLOW, NONE, Session(cluster::countkeysinslot), "3.0.0", "Returns the number of keys in a slot."),
        ("cluster|getkeysinslot", 4, CommandFlags::SLOW, NONE, Session(cluster::getkeysinslot), "3.0.0", "Returns keys in a slot."),
        ("cluster|help", 2, EMPTY, NONE, Session(cluster::help_text), "5.0.0", "Prints a help text."),
        ("cluster|info", 2, EMPTY, NONE, Session(cluster::info), "3.0.0", "Tells how the cluster is."),
        ("cluster|keyslot", 3, EMPTY, NONE, Session(cluster::keyslot), "3.0.0", "Returns the slot of a key."),
        ("cluster|myid", 2, EMPTY, NONE, Session(cluster::myid), "3.0.0", "Returns the name of the node."),
        ("cluster|nodes", 2, EMPTY, NONE, Session(cluster::nodes), "3.0.0", "Returns the nodes, with their slots."),
        ("cluster|shards", 2, EMPTY, NONE, Session(cluster::shards), "7.0.0", "Returns the slots, with their nodes."),
        ("cluster|slots", 2, EMPTY, NONE, Session(cluster::slots), "3.0.0", "Returns the slots, with their nodes."),
        ("readonly", 1, FAST, NONE, Session(cluster::readonly), "3.0.0", "Lets the client read what this node has, stale or not."),
        ("readwrite", 1, FAST, NONE, Session(cluster::readwrite), "3.0.0", "Ends the effect of READONLY."),
    ]
}

#[rustfmt::skip]
pub(super) fn publishing() -> Vec<CommandRow> {
    vec![
        ("psubscribe", -2, LISTEN, NONE, Session(publish::psubscribe), "2.0.0", "Subscribes to channels that match patterns."),
        ("publish", 3, CommandFlags::PUBSUB.and(FAST), NONE, Session(publish::publish), "2.0.0", "Sends a message to a channel."),
        ("pubsub", -2, BOX, NONE, Session(admin::container), "2.8.0", "Tells about subscriptions."),
        ("pubsub|channels", -2, CommandFlags::PUBSUB, NONE, Session(publish::channels), "2.8.0", "Returns the channels with subscribers."),
        ("pubsub|help", 2, EMPTY, NONE, Session(publish::help_text), "6.2.0", "Prints a help text."),
        ("pubsub|numpat", 2, CommandFlags::PUBSUB, NONE, Session(publish::numpat), "2.8.0", "Returns the number of patterns with subscribers."),
        ("pubsub|numsub", -2, CommandFlags::PUBSUB, NONE, Session(publish::numsub), "2.8.0", "Returns the numbers of subscribers of channels."),
        ("punsubscribe", -1, LISTEN, NONE, Session(publish::punsubscribe), "2.0.0", "Ends subscriptions to patterns."),
        ("subscribe", -2, LISTEN, NONE, Session(publish::subscribe), "2.0.0", "Subscribes to channels."),
        ("unsubscribe", -1, LISTEN, NONE, Session(publish::unsubscribe), "2.0.0", "Ends subscriptions to channels."),
    ]
}

#[rustfmt::skip]
pub(super) fn transactions() -> Vec<CommandRow> {
    vec![
        ("discard", 1, AT_ONCE, NONE, Session(transactions::discard), "2.0.0", "Forgets the commands since MULTI."),
        ("exec", 1, CommandFlags::IN_QUEUE_RUNS.and(CommandFlags::NO_SLOW_LOG), NONE, Session(transactions::exec), "1.2.0", "Runs the commands since MULTI at once."),
        ("multi", 1, AT_ONCE, NONE, Session(transactions::multi), "1.2.0", "Begins a transaction."),
        ("unwatch", 1, FAST, NONE, Session(transactions::unwatch), "2.2.0", "Forgets the watched keys."),
        ("watch", -2, AT_ONCE, super::ALL, Session(transactions::watch), "2.2.0", "Makes EXEC fail if keys change."),
    ]
}
