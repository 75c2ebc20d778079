//! A callback that plays another process: it runs between calls that only read, or that may find an
//! existing file.

use std::fmt;
use std::path::Path;

#[cfg(test)]
use super::Twin;
use crate::fs::Access;
use crate::sync::unmodeled::Mutex;

/// Called before each call that opens a file for reading or keeps its content, and before each
/// read. The argument is the path of the opened file.
type Callback = Box<dyn FnMut(Option<&Path>) + Send>;

/// The callback, if one is set.
#[derive(Default)]
pub(crate) struct Interference(Mutex<Option<Callback>>);

impl Interference {
    pub(crate) fn run_on_open(&self, path: &Path, access: Access) {
        if matches!(access, Access::Read | Access::Keep) {
            self.run(Some(path));
        }
    }

    /// Runs the callback. Calls that it makes itself do not run it again. No lock is held.
    pub(crate) fn run(&self, opened: Option<&Path>) {
        let Some(mut callback) = self.0.lock().take() else { return };
        callback(opened);
        *self.0.lock() = Some(callback);
    }
}

impl fmt::Debug for Interference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interference")
    }
}

#[cfg(test)]
impl Twin {
    /// Runs `run` while `callback` is set as the callback.
    pub(crate) fn with_interference<T>(
        &self,
        callback: impl FnMut(Option<&Path>) + Send + 'static,
        run: impl FnOnce() -> T,
    ) -> T {
        *self.interference.0.lock() = Some(Box::new(callback));
        let result = run();
        *self.interference.0.lock() = None;
        result
    }
}
