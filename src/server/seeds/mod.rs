//! The dialects of bitcaskpy and pybitcask: paths, fields, status codes and errors are theirs.
//!
//! Both have keys and values that are text. `values` says how one reads what the other has stored.

pub(super) mod kv;
mod listing;
pub(super) mod pybitcask;
mod validation;
mod values;

use axum::Router;
use axum::http::Uri;
use axum::routing::{delete, get, post};

use super::bytes::percent_decoded;
use super::failure::{ApiFailure, FieldProblem};
use super::reserved;
use super::state::SharedServer;

/// Returns the routes of the older programs.
pub(super) fn routes() -> Router<SharedServer> {
    Router::new()
        .route("/kv", get(kv::list))
        .route("/kv/{key}", get(kv::get).put(kv::put).delete(kv::delete))
        .route("/", get(pybitcask::status))
        .route("/put", post(pybitcask::put))
        .route("/batch", post(pybitcask::batch))
        .route("/get/{key}", get(pybitcask::get))
        .route("/delete/{key}", delete(pybitcask::delete))
        .route("/keys", get(pybitcask::keys))
        .route("/clear", post(pybitcask::clear))
}

/// Returns the key in a path, behind these characters.
fn key_of(uri: &Uri, before: &str) -> Result<String, ApiFailure> {
    let key = uri.path().strip_prefix(before).unwrap_or_default();
    let key = percent_decoded(key, false).and_then(|key| String::from_utf8(key).ok());
    let key = key.ok_or_else(|| {
        ApiFailure::fields(FieldProblem {
            loc: vec!["path".into(), "key".into()],
            msg: "Input should be a valid string".into(),
            kind: "string_type",
        })
    })?;
    reserved::check(key.as_bytes()).map(|()| key)
}
