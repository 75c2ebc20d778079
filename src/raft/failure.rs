//! Errors of a store, as openraft wants them.

use std::borrow::Borrow;

use openraft::{AnyError, ErrorSubject, ErrorVerb, NodeId, StorageError, StorageIOError};

use crate::error::Error;

/// Says what was being done when an error of a store occurred.
pub(super) trait During<T> {
    /// Returns the error as openraft wants it. openraft stops the node.
    fn during<N: NodeId>(
        self,
        subject: ErrorSubject<N>,
        verb: ErrorVerb,
    ) -> Result<T, StorageError<N>>;
}

impl<T, E: Borrow<Error>> During<T> for Result<T, E> {
    fn during<N: NodeId>(
        self,
        subject: ErrorSubject<N>,
        verb: ErrorVerb,
    ) -> Result<T, StorageError<N>> {
        self.map_err(|error| {
            StorageIOError::new(subject, verb, AnyError::new(error.borrow())).into()
        })
    }
}
