//! Panics of tasks, which otherwise end unheard: openraft panics when it finds that another node
//! has broken a promise.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Listens to this thread from now on.
pub(super) fn listen() {
    static BEGIN: Once = Once::new();
    BEGIN.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload_as_str().unwrap_or_default().replace('\n', " ");
            HEARD.with_borrow_mut(|heard| {
                heard.get_or_insert(text);
            });
            before(panic);
        }));
    });
    HEARD.take();
}

/// Returns what the first panic since then has said.
pub(super) fn heard() -> Option<String> {
    HEARD.take().map(|text| format!("a task has panicked: {text}"))
}
