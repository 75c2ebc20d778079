//! The client: against servers in the same process, and against some that misbehave.

mod admin;
mod calls;
mod failures;
mod fake;
mod feed;
mod listing;
mod model;
mod support;
mod tls;
