//! Parts of messages.

use std::path::Path;

/// Maximum number of a key's bytes that a message shows.
const KEY_SHOWN_MAX: usize = 64;

/// Formats a path for a message; an empty path is shown as `""`, since it would be invisible.
pub(super) fn shown(path: &Path) -> String {
    if path.as_os_str().is_empty() { "\"\"".to_owned() } else { path.display().to_string() }
}

pub(super) fn holder(pid: Option<u32>, ended: bool) -> String {
    match pid {
        None => "another handle".to_owned(),
        Some(pid) if pid == std::process::id() => {
            format!("another handle in this process ({pid})")
        }
        Some(pid) if ended => format!(
            "process {pid}, which is no longer running: a process that it forked still holds \
             the lock, or {pid} is the holder's id in another container"
        ),
        Some(pid) => format!("process {pid}"),
    }
}

/// Formats a key for a message, with `...` if it is long.
pub(crate) fn shown_key(key: &[u8]) -> String {
    match key.split_at_checked(KEY_SHOWN_MAX) {
        Some((shown, rest)) if !rest.is_empty() => {
            format!("b\"{}\"... ({} bytes)", shown.escape_ascii(), key.len())
        }
        _ => format!("b\"{}\"", key.escape_ascii()),
    }
}

pub(super) fn shown_undecodable(key: &[u8], reason: &str) -> String {
    let key = shown_key(key);
    format!(
        "cannot decode what is stored under key {key}: {reason}; nothing was changed, read it with \
         the type that wrote it, or as bytes"
    )
}

/// Formats a number of things.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
