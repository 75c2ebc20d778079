//! `INFO`.

use std::fmt::Write;

use bytes::Bytes;

use super::keys::COUNTED_MAX;
use super::rest;
use crate::replica::Replica;
use crate::resp::commands_table::table;
use crate::resp::counts::get;
use crate::resp::numbers::now_ms;
use crate::resp::refusal::Answer;
use crate::resp::reply::Reply;
use crate::resp::server_state::RespState;
use crate::resp::session::Session;

/// The sections in their order, and whether they are shown without being asked for.
const SECTIONS: &[(&str, bool)] = &[
    ("server", true),
    ("clients", true),
    ("memory", true),
    ("persistence", true),
    ("stats", true),
    ("replication", true),
    ("cpu", true),
    ("modules", true),
    ("commandstats", false),
    ("errorstats", true),
    ("cluster", true),
    ("keyspace", true),
];

pub(in crate::resp) fn info(session: &mut Session, args: &[Bytes]) -> Answer {
    session.share_counts();
    let asked: Vec<_> = rest(args, 1).iter().map(|name| name.to_ascii_lowercase()).collect();
    let has = |name: &str| asked.iter().any(|asked| asked == name.as_bytes());
    let has_all = has("all") || has("everything");
    let has_default = asked.is_empty() || has("default");
    let mut text = String::new();
    for (name, is_default) in SECTIONS {
        if has(name) || has_all || has_default && *is_default {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let title = name.get(..1).unwrap_or_default().to_ascii_uppercase();
            let rest = name.get(1..).unwrap_or_default();
            let _ = write!(text, "# {title}{rest}\r\n");
            section(&session.state, name, &mut text)?;
        }
    }
    Ok(Reply::Verbatim(text))
}

/// Appends lines of names and values.
fn lines<const N: usize>(text: &mut String, fields: [(&str, String); N]) {
    for (name, value) in fields {
        let _ = write!(text, "{name}:{value}\r\n");
    }
}

fn section(state: &RespState, name: &str, text: &mut String) -> Answer<()> {
    match name {
        "server" => server(state, text),
        "clients" => clients(state, text),
        "memory" => memory(state, text),
        "persistence" => persistence(state, text),
        "stats" => stats(state, text),
        "replication" => replication(state, text),
        "cpu" => lines(text, [("used_cpu_sys", "0.0".into()), ("used_cpu_user", "0.0".into())]),
        "commandstats" => commandstats(state, text),
        "errorstats" => {
            for (code, count) in state.counts.errors() {
                let _ = write!(text, "errorstat_{code}:count={count}\r\n");
            }
        }
        "cluster" => lines(
            text,
            [("cluster_enabled", i64::from(state.options.shards.is_some()).to_string())],
        ),
        "keyspace" => keyspace(state, text)?,
        _ => {}
    }
    Ok(())
}

/// Returns how far a replica has come in its leader's log, as one number that only grows.
pub(super) fn offset(replica: &Replica) -> i64 {
    let place = replica.position().and_then(|it| it.to_bytes().last_chunk::<8>().copied());
    place.map_or(0, |place| i64::try_from(u64::from_be_bytes(place)).unwrap_or(i64::MAX))
}

fn replication(state: &RespState, text: &mut String) {
    let replica = state.options.replica.as_ref().filter(|replica| replica.is_follower());
    lines(text, [("role", if replica.is_some() { "slave" } else { "master" }.to_owned())]);
    if let Some(replica) = replica {
        let (host, port) = replica.leader_address();
        let (lag, offset) = (replica.lag(), offset(replica));
        let seconds = lag.map_or(-1.0, |lag| lag.age.as_secs_f64());
        let flag = |yes: bool| u8::from(yes).to_string();
        let number = |number: Option<u64>| number.map_or("-1".to_owned(), |it| it.to_string());
        let link = if replica.is_connected() { "up" } else { "down" };
        let parts = [
            ("master_host", host.to_owned()),
            ("master_port", port.to_string()),
            ("master_link_status", link.to_owned()),
            ("master_sync_in_progress", flag(replica.is_resyncing())),
            ("slave_read_repl_offset", offset.to_string()),
            ("slave_repl_offset", offset.to_string()),
            ("slave_priority", "100".to_owned()),
            ("slave_read_only", "1".to_owned()),
            ("replica_lag_bytes", number(lag.map(|lag| lag.size))),
            ("replica_lag_entries", number(lag.map(|lag| lag.changes))),
            ("replica_lag_seconds", format!("{seconds:.3}")),
            ("replica_resyncs", replica.resyncs().to_string()),
            ("replica_resync_reason", replica.resync_reason().unwrap_or_default().to_owned()),
            ("replica_stuck", flag(replica.is_stuck())),
        ];
        lines(text, parts);
    }
    lines(
        text,
        [
            ("connected_slaves", "0".to_owned()),
            ("master_replid", state.run_id.clone()),
            ("master_repl_offset", "0".to_owned()),
        ],
    );
}

fn server(state: &RespState, text: &mut String) {
    let uptime = state.started.elapsed().as_secs();
    lines(
        text,
        [
            ("redis_version", crate::resp::REDIS_VERSION.to_owned()),
            ("redis_mode", state.mode().to_owned()),
            ("server_name", "bitcask".to_owned()),
            ("bitcask_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("os", std::env::consts::OS.to_owned()),
            ("arch_bits", "64".to_owned()),
            ("process_id", std::process::id().to_string()),
            ("run_id", state.run_id.clone()),
            ("tcp_port", state.port.to_string()),
            ("server_time_usec", now_ms().saturating_mul(1000).to_string()),
            ("uptime_in_seconds", uptime.to_string()),
            ("uptime_in_days", (uptime / 86_400).to_string()),
            ("hz", "10".to_owned()),
            ("executable", String::new()),
            ("config_file", String::new()),
        ],
    );
}

fn clients(state: &RespState, text: &mut String) {
    let (tracking, _, _) = state.tracker.counts();
    let subscribers = state.peers.list();
    let subscribers = subscribers.iter().filter(|peer| {
        let view = peer.view();
        view.0.channels + view.0.patterns > 0
    });
    let limit = &state.parameters.max_clients;
    lines(
        text,
        [
            ("connected_clients", state.peers.len().to_string()),
            ("cluster_connections", "0".to_owned()),
            ("maxclients", limit.load(std::sync::atomic::Ordering::Relaxed).to_string()),
            ("blocked_clients", "0".to_owned()),
            ("tracking_clients", tracking.to_string()),
            ("pubsub_clients", subscribers.count().to_string()),
        ],
    );
}

fn memory(state: &RespState, text: &mut String) {
    let keydir: u64 = state.databases.open().iter().map(|it| it.store.stats().keydir_size).sum();
    let size: u64 = state.databases.open().iter().map(|it| it.store.stats().live_size).sum();
    lines(
        text,
        [
            ("used_memory", keydir.to_string()),
            ("used_memory_dataset", size.to_string()),
            ("maxmemory", "0".to_owned()),
            ("maxmemory_policy", "noeviction".to_owned()),
            ("mem_allocator", "system".to_owned()),
            ("allocator_frag_ratio", "1.00".to_owned()),
        ],
    );
}

/// Returns whether the store is being filled with a leader's data, so that nobody may read it.
fn is_loading(state: &RespState) -> bool {
    state.options.replica.as_ref().is_some_and(Replica::is_loading)
}

fn persistence(state: &RespState, text: &mut String) {
    let saved = state.last_save.load(std::sync::atomic::Ordering::Relaxed) / 1000;
    lines(
        text,
        [
            ("loading", u8::from(is_loading(state)).to_string()),
            ("async_loading", "0".to_owned()),
            ("rdb_changes_since_last_save", "0".to_owned()),
            ("rdb_bgsave_in_progress", "0".to_owned()),
            ("rdb_last_save_time", saved.to_string()),
            ("rdb_last_bgsave_status", "ok".to_owned()),
            ("aof_enabled", "0".to_owned()),
            ("aof_rewrite_in_progress", "0".to_owned()),
            ("aof_rewrite_scheduled", "0".to_owned()),
            ("aof_last_write_status", "ok".to_owned()),
        ],
    );
}

fn stats(state: &RespState, text: &mut String) {
    let counts = &state.counts;
    let (mut hits, mut misses) = (0, 0);
    for database in state.databases.open() {
        let counters = database.store.counters();
        hits += counters.hits;
        misses += counters.misses;
    }
    let (_, tracked, prefixes) = state.tracker.counts();
    let errors: u64 = counts.errors().values().sum();
    lines(
        text,
        [
            ("total_connections_received", get(&counts.connections).to_string()),
            ("total_commands_processed", get(&counts.processed).to_string()),
            ("instantaneous_ops_per_sec", "0".to_owned()),
            ("total_net_input_bytes", get(&counts.input_bytes).to_string()),
            ("total_net_output_bytes", get(&counts.output_bytes).to_string()),
            ("rejected_connections", get(&counts.rejected_connections).to_string()),
            ("expired_keys", get(&counts.expired).to_string()),
            ("evicted_keys", "0".to_owned()),
            ("keyspace_hits", hits.to_string()),
            ("keyspace_misses", misses.to_string()),
            ("pubsub_channels", state.hub.channel_count().to_string()),
            ("pubsub_patterns", state.hub.pattern_count().to_string()),
            ("tracking_total_keys", tracked.to_string()),
            ("tracking_total_items", state.tracker.remembered().to_string()),
            ("tracking_total_prefixes", prefixes.to_string()),
            ("total_error_replies", errors.to_string()),
            ("client_output_buffer_limit_disconnections", get(&counts.full_outboxes).to_string()),
        ],
    );
}

fn commandstats(state: &RespState, text: &mut String) {
    for (spec, counts) in table().rows().iter().zip(&state.counts.commands) {
        let (calls, micros) = (get(&counts.calls), get(&counts.micros));
        let (rejected, failed) = (get(&counts.rejected), get(&counts.failed));
        if calls + rejected + failed == 0 {
            continue;
        }
        // Hundredths, without a floating point number.
        let mean = micros.saturating_mul(100).checked_div(calls).unwrap_or(0);
        let _ = write!(
            text,
            "cmdstat_{}:calls={calls},usec={micros},usec_per_call={}.{:02},rejected_calls=\
             {rejected},failed_calls={failed}\r\n",
            spec.name,
            mean / 100,
            mean % 100,
        );
    }
}

fn keyspace(state: &RespState, text: &mut String) -> Answer<()> {
    for number in state.databases.existing() {
        // A client that selects a database that cannot be opened gets the reason as an error.
        let Ok(database) = state.databases.get(number) else { continue };
        if number == 0 && is_loading(state) {
            continue;
        }
        // Of a large database, also the entries of hashes, to be quick.
        let entries = database.store.len()?;
        let keys = if entries > COUNTED_MAX { entries } else { database.key_count()? };
        if keys > 0 {
            let _ = write!(text, "db{number}:keys={keys},expires=0,avg_ttl=0\r\n");
        }
    }
    Ok(())
}
