//! Where calls run that may wait for the disk.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs a call that may wait for the disk. The other tasks of this thread are served by another one
/// meanwhile, if the runtime has several.
pub(crate) fn blocking<T>(call: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    if matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
        tokio::task::block_in_place(call)
    } else {
        call()
    }
}
