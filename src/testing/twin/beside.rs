//! Somebody else who has a turn between two calls that change nothing, or a file that may be there already.

use std::fmt;
use std::path::Path;

use super::Twin;
use crate::fs::Access;
use crate::sync::unmodeled::Mutex;

/// Has a turn before each call of others that opens a file for reading, or to keep what is in it, or reads; is
/// told which file is opened.
type Turn = Box<dyn FnMut(Option<&Path>) + Send>;

/// Who has turns, if anybody has.
#[derive(Default)]
pub(crate) struct Beside(Mutex<Option<Turn>>);

impl Beside {
    pub(crate) fn meet_open(&self, path: &Path, access: Access) {
        if matches!(access, Access::Read | Access::Keep) {
            self.meet(Some(path));
        }
    }

    /// Lets somebody have a turn. In it the calls are all its own. No lock is held.
    pub(crate) fn meet(&self, opened: Option<&Path>) {
        let Some(mut turn) = self.0.lock().take() else { return };
        turn(opened);
        *self.0.lock() = Some(turn);
    }
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Beside")
    }
}

#[cfg(test)]
impl Twin {
    /// Runs something while somebody else has turns.
    pub(crate) fn with_beside<T>(
        &self,
        turn: impl FnMut(Option<&Path>) + Send + 'static,
        run: impl FnOnce() -> T,
    ) -> T {
        *self.beside.0.lock() = Some(Box::new(turn));
        let result = run();
        *self.beside.0.lock() = None;
        result
    }
}
