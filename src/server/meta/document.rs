//! The description of the API, as `OpenAPI` has it.

use std::sync::OnceLock;

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as OpenApiDocument, Ref, RefOr};
use utoipa::openapi::{Response as OpenApiResponse, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::{health, metrics, shapes};
use crate::server::seeds::{kv, pybitcask};
use crate::server::v1::{batch, changes, get_many, keys, list, promote, snapshot, stats, upkeep};

/// All routes. A test compares them with those that the server has.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "bitcask",
        description = "A key-value store over HTTP: the dialects of bitcaskpy and pybitcask, and v1, which offers all of the store."
    ),
    tags(
        (name = "v1", description = "All of the store. Keys and values are any bytes."),
        (name = "bitcaskpy", description = "The dialect of bitcaskpy. Values are text."),
        (name = "pybitcask", description = "The dialect of pybitcask. Values are JSON."),
        (name = "server", description = "The server itself."),
    ),
    paths(
        keys::read, keys::write, keys::delete, list::list, batch::write, get_many::read,
        changes::follow, snapshot::read, stats::stats, stats::segments, upkeep::merge, upkeep::backup,
        upkeep::verify, upkeep::stop, promote::promote,
        kv::put, kv::get, kv::delete, kv::list,
        pybitcask::status, pybitcask::put, pybitcask::batch, pybitcask::get, pybitcask::delete,
        pybitcask::keys, pybitcask::clear,
        health::health, metrics::metrics,
    ),
    security(("token" = [])),
    modifiers(&TokenScheme, &CommonAnswers)
)]
struct ApiDocument;

/// Adds how the token is sent.
struct TokenScheme;

impl Modify for TokenScheme {
    fn modify(&self, document: &mut OpenApiDocument) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// The answers that every operation may have, besides its own.
const COMMON: [(&str, &str); 7] = [
    ("400", "The request is malformed"),
    ("401", "The token is missing or wrong"),
    ("403", "A page of another site may not do this"),
    ("413", "The body is too large"),
    ("429", "Too many requests from this address"),
    ("500", "The store has failed"),
    ("503", "The server is too busy, or the store accepts no more writes"),
];

/// Adds these answers.
struct CommonAnswers;

impl Modify for CommonAnswers {
    fn modify(&self, document: &mut OpenApiDocument) {
        for path in document.paths.paths.values_mut() {
            let operations = [&mut path.get, &mut path.put, &mut path.post, &mut path.delete];
            for operation in operations.into_iter().flatten() {
                for (status, about) in COMMON {
                    let answers = &mut operation.responses.responses;
                    let answer = || RefOr::T(refusal(about));
                    answers.entry(status.to_owned()).or_insert_with(answer);
                }
            }
        }
    }
}

fn refusal(about: &str) -> OpenApiResponse {
    let schema = Ref::from_schema_name("FailureBody");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(about).content("application/json", content).build()
}

/// Returns the document.
fn document() -> serde_json::Value {
    // Everything in it can be written as JSON.
    let mut document = serde_json::to_value(ApiDocument::openapi()).unwrap_or_default();
    shapes::refine(&mut document);
    document
}

/// Answers with the document.
pub(super) async fn openapi() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| document().to_string());
    let mut response = text.as_str().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_is_described_once() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let operations: Vec<_> =
            paths.values().flat_map(|path| path.as_object().unwrap()).collect();
        let ids: BTreeSet<_> =
            operations.iter().map(|(_, it)| it["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), operations.len());
        assert_eq!(operations.len(), 29);
        for (_, operation) in operations {
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{operation}");
        }
        assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    }

    #[test]
    fn the_document_refers_only_to_what_it_has() {
        let document = document();
        let text = document.to_string();
        let names = text.split("\"#/components/schemas/").skip(1);
        for name in names.map(|rest| rest.split('"').next().unwrap()) {
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
