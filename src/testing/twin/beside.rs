//! A callback that runs between two calls that change nothing or may find an existing file, in the
//! role of another process.

use std::fmt;
use std::path::Path;

#[cfg(test)]
use super::Twin;
use crate::fs::Access;
use crate::sync::unmodeled::Mutex;

/// Called before each call by others that opens a file for reading or with its content kept, and
/// before each read. The argument is the path of the opened file.
type Turn = Box<dyn FnMut(Option<&Path>) + Send>;

/// The callback, if one is set.
#[derive(Default)]
pub(crate) struct Beside(Mutex<Option<Turn>>);

impl Beside {
    pub(crate) fn meet_open(&self, path: &Path, access: Access) {
        if matches!(access, Access::Read | Access::Keep) {
            self.meet(Some(path));
        }
    }

    /// Runs the callback. Calls that it makes itself do not run it again. No lock is held.
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
    /// Runs `run` while `turn` is set as the callback.
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
