//! Calls, and the attempts that each of them takes.
//!
//! - An attempt fails in passing or for good. Only what has failed in passing is repeated, and a
//!   call that cannot be repeated safely only if it has certainly not reached the server.
//! - All attempts of a call have the same id, which the client makes, so that it is known even if
//!   no answer comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backon::{BlockingRetryable as _, ExponentialBuilder};
use ureq::http::{HeaderMap, Request, Response};
use ureq::{Agent, Body, BodyReader};

use super::agents;
use super::attempt::{FailedAttempt, ServerSign};
use super::breaker::CircuitBreaker;
use super::call::{RemoteAnswer, RemoteCall, header, refusal, shortened};
use super::error::ClientError;
use super::options::ClientOptions;
use crate::dialect;

/// Longest delay between two attempts, without what chance adds.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);
/// Size from which a body is announced, and sent only once the server wants it, in bytes. A server
/// that refuses it closes the connection, and the answer would be lost behind what is still sent.
const BODY_ANNOUNCED_FROM: usize = 256 << 10;
/// Longest path of a request, in bytes. The server accepts 64 KiB with all headers.
const PATH_SIZE_MAX: usize = 60 << 10;

/// What all handles of a client share: connections, and what is known of the server.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) url: String,
    pub(super) options: ClientOptions,
    /// For calls with a time limit, for those without one, and for streams.
    calls: Agent,
    upkeep: Agent,
    streams: Agent,
    /// Lock 0: never held while anything is called.
    breaker: Mutex<CircuitBreaker>,
    /// What the ids of this client's requests begin with.
    id_prefix: u64,
    requests: AtomicU64,
}

impl Transport {
    pub(super) fn new(options: ClientOptions) -> Result<Self, ClientError> {
        let options = options.with_environment(|name| std::env::var(name).ok());
        let url = options.check()?;
        let roots = agents::roots(&options)?;
        Ok(Self {
            calls: agents::for_calls(&options, &roots),
            upkeep: agents::for_upkeep(&options, &roots),
            streams: agents::for_streams(&options, &roots),
            breaker: Mutex::new(CircuitBreaker::new(
                options.breaker_failures,
                options.breaker_cooldown,
            )),
            id_prefix: random(),
            requests: AtomicU64::new(0),
            url,
            options,
        })
    }

    /// Returns the id of a new request.
    pub(super) fn new_id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{:016x}-{number}", self.id_prefix)
    }

    /// Sends a request, again if that is safe and makes sense, and returns the answer.
    pub(super) fn call(
        &self,
        call: &RemoteCall<'_>,
        id: &str,
    ) -> Result<RemoteAnswer, ClientError> {
        self.check_path(&call.path)?;
        let agent = if call.is_upkeep { &self.upkeep } else { &self.calls };
        self.repeated(call.is_repeatable, || {
            self.guarded(id, || {
                let response = self.send(agent, call, id)?;
                self.read(call, response, id)
            })
        })
    }

    /// Opens a stream, from which the caller reads as long as it likes.
    pub(super) fn stream(
        &self,
        call: &RemoteCall<'_>,
        id: &str,
    ) -> Result<BodyReader<'static>, ClientError> {
        self.check_path(&call.path)?;
        self.repeated(true, || {
            self.guarded(id, || {
                let response = self.send(&self.streams, call, id)?;
                if response.status().as_u16() != 200 {
                    return Err(match self.read(call, response, id) {
                        Ok(answer) => {
                            let reason = format!("status {}", answer.status);
                            FailedAttempt::lasting(self.invalid(id, reason))
                        }
                        Err(failed) => failed,
                    });
                }
                self.check_origin(response.headers(), id)?;
                Ok(response.into_body().into_with_config().limit(u64::MAX).reader())
            })
        })
    }

    /// Makes attempts until one succeeds, or another one makes no sense.
    fn repeated<T>(
        &self,
        is_repeatable: bool,
        attempt: impl FnMut() -> Result<T, FailedAttempt>,
    ) -> Result<T, ClientError> {
        let begun = Instant::now();
        let delays = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(self.options.retry_delay)
            .with_max_delay(RETRY_DELAY_MAX.max(self.options.retry_delay))
            .with_max_times(self.options.retries);
        let again = |failed: &FailedAttempt| {
            let is_safe = is_repeatable || !failed.was_sent();
            let is_open = self.breaker().wait(Instant::now()).is_some();
            failed.is_passing && is_safe && !is_open && begun.elapsed() < self.options.timeout
        };
        attempt.retry(delays).when(again).call().map_err(|failed| failed.error)
    }

    /// Makes one attempt, if the circuit breaker allows it, and tells it what has happened.
    fn guarded<T>(
        &self,
        id: &str,
        attempt: impl FnOnce() -> Result<T, FailedAttempt>,
    ) -> Result<T, FailedAttempt> {
        let admitted = self.breaker().admit(Instant::now());
        admitted.map_err(|retry_after| {
            let (url, request_id) = (self.url.clone(), id.to_owned());
            FailedAttempt::lasting(ClientError::CircuitOpen { url, retry_after, request_id })
        })?;
        let result = attempt();
        let sign = result.as_ref().map_or_else(FailedAttempt::sign, |_| ServerSign::Works);
        match sign {
            ServerSign::Works => self.breaker().succeed(),
            ServerSign::Fails => self.breaker().fail(Instant::now()),
            ServerSign::None => {}
        }
        result
    }

    fn breaker(&self) -> MutexGuard<'_, CircuitBreaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_path(&self, path: &str) -> Result<(), ClientError> {
        if self.url.len() + path.len() <= PATH_SIZE_MAX {
            return Ok(());
        }
        let size = path.len();
        let reason = format!(
            "the URL would have {size} bytes, and {PATH_SIZE_MAX} are possible: the key is too long"
        );
        Err(ClientError::InvalidRequest { reason })
    }

    /// Sends a request once.
    fn send(
        &self,
        agent: &Agent,
        call: &RemoteCall<'_>,
        id: &str,
    ) -> Result<Response<Body>, FailedAttempt> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(format!("{}{}", self.url, call.path))
            .header(dialect::CLIENT_REQUEST_ID, id);
        if let Some(token) = &self.options.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if call.body.is_some_and(|body| body.len() >= BODY_ANNOUNCED_FROM) {
            request = request.header("expect", "100-continue");
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let invalid = |error: ureq::http::Error| {
            FailedAttempt::lasting(ClientError::InvalidRequest { reason: error.to_string() })
        };
        let sent = match call.body {
            Some(bytes) => agent.run(request.body(bytes).map_err(invalid)?),
            None => agent.run(request.body(()).map_err(invalid)?),
        };
        sent.map_err(|error| self.failed(&error, id))
    }

    /// Reads an answer.
    fn read(
        &self,
        call: &RemoteCall<'_>,
        mut response: Response<Body>,
        id: &str,
    ) -> Result<RemoteAnswer, FailedAttempt> {
        let limit = self.options.answer_size_limit;
        let body = response.body_mut().with_config().limit(limit).read_to_vec();
        let body = body.map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => {
                let request_id = id.to_owned();
                FailedAttempt::lasting(ClientError::AnswerTooLarge { limit, request_id })
            }
            error => self.failed(&error, id),
        })?;
        let (parts, _) = response.into_parts();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        // A proxy answers 404 too, so the body has to say that it is about a key.
        let is_about_key = || {
            let code = refusal(&body).and_then(|(_, code)| code);
            code.as_deref() == Some(dialect::KEY_NOT_FOUND)
        };
        let has_body = call.method != "HEAD";
        if call.accepted.contains(&status) && (status != 404 || !has_body || is_about_key()) {
            let request_id = self.check_origin(&headers, id)?;
            return Ok(RemoteAnswer { status, body, request_id, headers });
        }
        let (detail, code) = refusal(&body).unwrap_or_else(|| (shortened(&body), None));
        let request_id = header(&headers, dialect::REQUEST_ID).unwrap_or(id).to_owned();
        Err(FailedAttempt::refused(status, code, detail, request_id))
    }

    fn failed(&self, error: &ureq::Error, id: &str) -> FailedAttempt {
        FailedAttempt::broken(error, &self.url, self.options.timeout, id)
    }

    /// Returns the id in an answer, which every answer of a server has.
    fn check_origin(&self, headers: &HeaderMap, id: &str) -> Result<String, FailedAttempt> {
        header(headers, dialect::REQUEST_ID).map(str::to_owned).ok_or_else(|| {
            let reason = "it has no request id, so it is not that of a store".into();
            FailedAttempt::lasting(self.invalid(id, reason))
        })
    }

    /// Returns the error of an answer that is not understood.
    pub(super) fn invalid(&self, id: &str, reason: String) -> ClientError {
        let (url, request_id) = (self.url.clone(), id.to_owned());
        ClientError::InvalidAnswer { url, reason, request_id }
    }

    /// Returns the error of a connection that has failed.
    pub(super) fn broken(&self, id: &str, reason: String) -> ClientError {
        let (url, request_id) = (self.url.clone(), id.to_owned());
        ClientError::Connection { url, reason, was_sent: true, request_id }
    }
}

/// Returns a number that no other client has.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}
