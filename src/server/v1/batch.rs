//! Several changes at once: `POST /v1/batch`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::times;
use crate::options::WriteOptions;
use crate::server::body::{self, BoundedList};
use crate::server::bytes::one_of;
use crate::server::failure::{ApiFailure, FailureBody};
use crate::server::reserved;
use crate::server::state::SharedServer;
use crate::store::Batch;

/// Changes that are made together.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct BatchBody {
    /// At most 10,000 puts and deletes. If several are of one key, the last one counts.
    #[schema(value_type = Vec<BatchOperation>, max_items = 10000)]
    operations: BoundedList<BatchOperation>,
    /// Whether to wait until all of it is durable; otherwise the store's settings decide.
    durable: Option<bool>,
}

/// A put or a delete.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct BatchOperation {
    op: BatchVerb,
    /// The key, if it is text.
    key: Option<String>,
    /// The key in base64.
    key_base64: Option<String>,
    /// The value of a put, if it is text.
    value: Option<String>,
    /// The value of a put, in base64.
    value_base64: Option<String>,
    /// How many seconds the key lives.
    ttl: Option<f64>,
    /// When the key expires, in UTC.
    expires_at: Option<String>,
    /// Whether the key keeps the time to live that it has.
    #[serde(default)]
    keep_ttl: bool,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum BatchVerb {
    Put,
    Delete,
}

/// How many changes were made.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct WrittenAnswer {
    count: usize,
}

impl BatchOperation {
    fn add_to(self, batch: &mut Batch) -> Result<(), ApiFailure> {
        let key = one_of("key", self.key, self.key_base64)?;
        let key = key.ok_or_else(|| ApiFailure::invalid("`key` is missing"))?;
        reserved::check(&key)?;
        let value = one_of("value", self.value, self.value_base64)?;
        if self.op == BatchVerb::Delete {
            let lives = self.ttl.is_some() || self.expires_at.is_some() || self.keep_ttl;
            if value.is_some() || lives {
                return Err(ApiFailure::invalid("a delete has only a key"));
            }
            batch.delete(key);
            return Ok(());
        }
        let value = value.ok_or_else(|| ApiFailure::invalid("`value` is missing"))?;
        let options = match (self.ttl, self.expires_at) {
            (None, None) => WriteOptions::new(),
            (Some(seconds), None) => WriteOptions::new().ttl(times::seconds(seconds)?),
            (None, Some(time)) => WriteOptions::new().expires_at(times::read(&time)?),
            (Some(_), Some(_)) => {
                return Err(ApiFailure::invalid("there are both `ttl` and `expires_at`"));
            }
        };
        batch.put_opt(key, value, options.keep_ttl(self.keep_ttl));
        Ok(())
    }
}

/// Make several changes: all of them, or none, even after a crash.
#[utoipa::path(
    post, path = "/v1/batch", tag = "v1", operation_id = "v1_batch",
    request_body = BatchBody,
    responses(
        (status = 200, description = "All changes are made", body = WrittenAnswer),
        (status = 400, description = "The body has not the expected form", body = FailureBody),
        (status = 413, description = "The batch is too large", body = FailureBody),
        (status = 507, description = "The disk is full", body = FailureBody),
    )
)]
pub(in super::super) async fn write(
    State(state): State<SharedServer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<WrittenAnswer>, ApiFailure> {
    let (wanted, memory) = body::read_json::<BatchBody>(&state, &headers, body).await?;
    let written = state.on_pool(move |state| {
        let _memory = memory;
        let mut batch = Batch::new();
        for operation in wanted.operations.0 {
            operation.add_to(&mut batch)?;
        }
        let options = WriteOptions::new();
        let options = wanted.durable.map_or(options, |durable| options.durable(durable));
        state.db.write_opt(&batch, options)?;
        Ok::<_, ApiFailure>(batch.len())
    });
    Ok(Json(WrittenAnswer { count: written.await? }))
}
