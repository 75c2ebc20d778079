//! Names that clients give themselves and their libraries.

use super::refusal::{Answer, refused_with};

/// Maximum size of a name.
const NAME_SIZE_MAX: usize = 64 << 10;

/// Checks a name, which has to fit into a line of `CLIENT LIST`.
pub(super) fn check_name(name: &[u8], what: &str) -> Answer<String> {
    let is_plain = name.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if !is_plain || name.len() > NAME_SIZE_MAX {
        return refused_with(format!(
            "ERR {what} cannot contain spaces, newlines or special characters."
        ));
    }
    Ok(String::from_utf8_lossy(name).into_owned())
}
