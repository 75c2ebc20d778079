//! Turns the store's errors into exceptions: the classes of `bitcask._errors`, with the messages of
//! the Rust errors, except those that advise what only Rust has.

use bitcask::Error;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Raises the exception for an error of the store.
#[expect(clippy::needless_pass_by_value, reason = "it is passed to `map_err`")]
pub(crate) fn raise(error: Error) -> PyErr {
    Python::attach(|py| {
        let raised = exception(py, class_name(&error), &message(&error));
        if let Some(code) = os_code(py, &error) {
            // Without it, the exception is still the right one.
            let _ = raised.value(py).setattr("errno", code);
        }
        raised
    })
}

/// Raises `bitcask.InvalidInput`, which is a `ValueError`.
pub(crate) fn invalid(message: &str) -> PyErr {
    Python::attach(|py| exception(py, "InvalidInput", message))
}

/// Raises `bitcask.Closed`.
pub(crate) fn closed(what: &str) -> PyErr {
    Python::attach(|py| exception(py, "Closed", &format!("the {what} is closed")))
}

fn exception(py: Python<'_>, class: &str, message: &str) -> PyErr {
    let raised = py
        .import("bitcask._errors")
        .and_then(|module| module.getattr(class))
        .and_then(|class| class.call1((message,)));
    match raised {
        Ok(raised) => PyErr::from_value(raised),
        Err(_) => PyRuntimeError::new_err(message.to_owned()),
    }
}

fn message(error: &Error) -> String {
    match error {
        Error::NotFound { path, .. } => format!(
            "there is no store at {}; `bitcask.open` creates one unless it is called with \
             `create=False` or `read_only=True`",
            path.display()
        ),
        error => error.to_string(),
    }
}

fn class_name(error: &Error) -> &'static str {
    match error {
        Error::NotFound { .. } => "NotFound",
        Error::ReadOnly => "ReadOnlyError",
        error if error.is_poisoned() => "Poisoned",
        error if error.is_corruption() => "Corrupt",
        error if error.is_locked() => "Locked",
        error if error.is_no_space() => "NoSpace",
        error if error.is_conflict() => "Conflict",
        error if error.is_forked() => "Forked",
        error if error.is_unsupported() => "Unsupported",
        error if error.is_invalid_input() => "InvalidInput",
        _ => "StorageError",
    }
}

/// Returns the operating system's code of an error, even if the store has a variant of its own for
/// it.
fn os_code<'py>(py: Python<'py>, error: &Error) -> Option<Bound<'py, PyAny>> {
    let code = |name: &str| py.import("errno").and_then(|module| module.getattr(name)).ok();
    match error {
        Error::Io { source, .. } | Error::Threads { source } => {
            source.raw_os_error()?.into_bound_py_any(py).ok()
        }
        Error::Locked { .. } => code("EWOULDBLOCK"),
        Error::NoSpace { .. } => code("ENOSPC"),
        Error::NotADirectory { .. } => code("ENOTDIR"),
        Error::NotFound { .. } => code("ENOENT"),
        Error::Poisoned { cause } => os_code(py, cause),
        _ => None,
    }
}
