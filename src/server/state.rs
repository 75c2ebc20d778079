//! What all requests share, and where calls of the store run.
//!
//! - A call that may wait for the disk runs on a thread of the pool. At most `store_threads` of
//!   them run or wait in the pool; the requests of others wait without a thread.
//! - A get of one key whose value is small runs where the request is handled, as long as it only
//!   touches memory: all shards are filled and all segments mapped, which `observe` checks every
//!   second. It may still fault a page in: decision 58.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::body::{LentValue, reserve_size};
use super::failure::ApiFailure;
use super::follow::StoreFollower;
use super::gate::rate::ClientRates;
use super::idle::IdleConnections;
use super::leases::SnapshotLeases;
use super::meta::requests::RequestFigures;
use super::options::ServerOptions;
use crate::error::Result;
use crate::fs::files_limit;
use crate::replica::Replica;
use crate::store::{Bitcask, BoundedGet, Version};
use crate::value::Admitted;

/// The state as handlers receive it.
pub(super) type SharedServer = Arc<ServerState>;

/// What all requests share.
pub(super) struct ServerState {
    pub(super) db: Arc<Bitcask>,
    pub(super) options: ServerOptions,
    pub(super) follower: Option<StoreFollower>,
    replica: Option<Replica>,
    pub(super) stop: StopSignal,
    pub(super) requests: RequestFigures,
    pub(super) connections: Arc<IdleConnections>,
    pub(super) rate: Option<ClientRates>,
    pub(super) started: Instant,
    /// History that is kept for followers that store a snapshot.
    pub(super) leases: SnapshotLeases,
    /// Permits of calls of the store on the pool.
    calls: Arc<Semaphore>,
    /// Permits of answers that are streamed.
    streams: Arc<Semaphore>,
    /// The permit of a merge, a backup or a verification: one at a time.
    upkeep: Arc<Semaphore>,
    /// Permits of pages of memory for bodies and large answers.
    pub(super) body_pages: Arc<Semaphore>,
    body_pages_max: usize,
    /// Whether gets of single keys touch only memory.
    gets_in_memory: AtomicBool,
}

/// Size of a page of memory for bodies, in bytes.
pub(super) const PAGE_SIZE: u64 = 4096;

impl ServerState {
    pub(super) fn new(
        db: Arc<Bitcask>,
        options: ServerOptions,
        follower: Option<StoreFollower>,
    ) -> Self {
        let pages = usize::try_from(options.body_memory_limit.div_ceil(PAGE_SIZE));
        let pages = pages.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            db,
            replica: follower.as_ref().map(StoreFollower::replica),
            follower,
            stop: StopSignal::new(),
            requests: RequestFigures::default(),
            connections: Arc::default(),
            rate: options.requests_per_second.map(ClientRates::new),
            started: Instant::now(),
            leases: SnapshotLeases::default(),
            calls: permits(options.store_threads),
            streams: permits(options.streams_max),
            upkeep: permits(1),
            body_pages: permits(pages),
            body_pages_max: pages,
            gets_in_memory: AtomicBool::new(false),
            options,
        }
    }

    /// Returns the state of the store as a replica, if the server follows or has followed a leader.
    pub(super) fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }

    /// Returns the maximum number of connections. The store needs open files too.
    pub(super) fn connections_max(&self) -> usize {
        self.options.connections_max.min((files_limit() / 2).max(1))
    }

    /// Returns how many threads may block at the same time.
    pub(super) fn blocking_threads(&self) -> usize {
        // One for upkeep, and one for looking at the store.
        self.options.store_threads.saturating_add(self.options.streams_max).saturating_add(2)
    }

    /// Calls the store on a thread of the pool, which may wait for the disk.
    pub(super) async fn on_pool<T, E>(
        self: &Arc<Self>,
        call: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, ApiFailure>
    where
        T: Send + 'static,
        E: Into<ApiFailure> + Send + 'static,
    {
        let permit = Arc::clone(&self.calls).acquire_owned().await;
        self.blocking(permit.ok(), call).await
    }

    /// Looks up a single key without its value: here if that only touches memory, and otherwise on
    /// the pool.
    pub(super) async fn look<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T, ApiFailure> {
        if self.gets_in_memory.load(Ordering::Relaxed) {
            return Ok(call(self)?);
        }
        self.on_pool(call).await
    }

    /// Reads a single key: here if that only touches memory and the value is small, and otherwise
    /// on the pool. All of a value is read to verify it. One that has to be decompressed takes its
    /// memory before.
    pub(super) async fn get(
        self: &Arc<Self>,
        key: Vec<u8>,
    ) -> Result<Option<(LentValue, Version)>, ApiFailure> {
        if self.gets_in_memory.load(Ordering::Relaxed) {
            match self.db.get_versioned_up_to(&key, VALUE_INLINE_MAX)? {
                BoundedGet::Absent => return Ok(None),
                BoundedGet::Found(value, version) => {
                    return Ok(Some((LentValue::new(self, value, None)?, version)));
                }
                BoundedGet::Larger => {}
            }
        }
        self.on_pool(move |state| {
            let mut memory = None;
            let mut admits = |size| reserve_size(state, &mut memory, size).is_ok();
            match state.db.get_admitted(&key, &mut admits)? {
                None => Ok(None),
                Some((Admitted::Size(_), _)) => Err(ApiFailure::out_of_body_memory()),
                Some((Admitted::Value(value), version)) => {
                    Ok(Some((LentValue::new(state, value, memory)?, version)))
                }
            }
        })
        .await
    }

    /// Turns a value into another form, which is counted instead of it: here if it is small, and
    /// otherwise on the pool.
    pub(super) async fn convert<T: Send + 'static>(
        self: &Arc<Self>,
        value: LentValue,
        convert: impl FnOnce(&Self, &[u8]) -> Result<T, ApiFailure> + Send + 'static,
    ) -> Result<T, ApiFailure> {
        if value.as_ref().len() <= INLINE_MAX {
            return convert(self, &value.into_value());
        }
        self.on_pool(move |state| convert(state, &value.into_value())).await
    }

    /// Calls the store for a merge, a backup or a verification, one at a time.
    pub(super) async fn upkeep<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T, ApiFailure> {
        match Arc::clone(&self.upkeep).try_acquire_owned() {
            Ok(permit) => self.blocking(Some(permit), call).await,
            Err(_) => Err(ApiFailure::busy_with_upkeep()),
        }
    }

    #[cfg(test)]
    pub(super) fn is_under_upkeep(&self) -> bool {
        self.upkeep.available_permits() == 0
    }

    /// Returns the permit of a stream, or an error if there are too many.
    pub(super) fn stream(&self) -> Result<OwnedSemaphorePermit, ApiFailure> {
        let permit = Arc::clone(&self.streams).try_acquire_owned();
        permit.map_err(|_| ApiFailure::too_many_streams(self.options.streams_max))
    }

    async fn blocking<T, E>(
        self: &Arc<Self>,
        permit: Option<OwnedSemaphorePermit>,
        call: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, ApiFailure>
    where
        T: Send + 'static,
        E: Into<ApiFailure> + Send + 'static,
    {
        let state = Arc::clone(self);
        let called = tokio::task::spawn_blocking(move || {
            // Kept until the call ends, even if nobody waits for its result any more.
            let _permit = permit;
            call(&state)
        });
        match called.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(ApiFailure::internal("a call of the store has panicked")),
        }
    }

    /// Returns how much memory bodies and large answers may take at most, in bytes.
    pub(super) fn body_memory_max(&self) -> u64 {
        self.body_pages_max as u64 * PAGE_SIZE
    }

    /// Returns how much memory bodies and large answers take now, in bytes.
    pub(super) fn body_memory(&self) -> u64 {
        let taken = self.body_pages_max.saturating_sub(self.body_pages.available_permits());
        taken as u64 * PAGE_SIZE
    }

    /// Returns whether the store accepts writes.
    pub(super) fn is_healthy(&self) -> bool {
        self.db.is_sound()
    }

    /// Checks regularly whether gets touch only memory, until the server stops.
    pub(super) async fn observe(self: Arc<Self>) {
        loop {
            let state = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || state.db.stats()).await;
            let in_memory =
                looked.is_ok_and(|it| it.unfilled_shards == 0 && it.unmapped_segments == 0);
            self.gets_in_memory.store(in_memory, Ordering::Relaxed);
            self.leases.expire(Instant::now());
            let pause = tokio::time::timeout(OBSERVED, self.stop.raised());
            if pause.await.is_ok() {
                return;
            }
        }
    }
}

/// Maximum size of a value or a body that is converted where its request is handled, in bytes.
pub(super) const INLINE_MAX: usize = 64 << 10;

/// Maximum size of a value that is read where its request is handled, in bytes.
const VALUE_INLINE_MAX: u32 = 64 << 10;

/// How often the server looks whether gets touch only memory.
const OBSERVED: Duration = Duration::from_secs(1);

/// Says that the server has to stop.
#[derive(Debug, Clone)]
pub(super) struct StopSignal {
    sender: watch::Sender<bool>,
    /// The same for calls of the store.
    flag: Arc<AtomicBool>,
}

impl StopSignal {
    fn new() -> Self {
        Self { sender: watch::Sender::new(false), flag: Arc::default() }
    }

    pub(super) fn raise(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.sender.send_replace(true);
    }

    pub(super) fn is_raised(&self) -> bool {
        *self.sender.borrow()
    }

    /// Returns whether the signal is raised, for calls that look by themselves.
    pub(super) fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// Waits until the signal is raised.
    pub(super) async fn raised(&self) {
        // The sender exists as long as this does, so there is no error.
        let _ = self.sender.subscribe().wait_for(|raised| *raised).await;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;
    use crate::options::Options;

    #[test]
    fn a_large_value_is_read_on_the_pool() {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), Options::new()).unwrap();
        let large = vec![b'x'; usize::try_from(VALUE_INLINE_MAX).unwrap() + 1];
        db.put("small", large.get(1..).unwrap()).unwrap();
        db.put("large", &large).unwrap();
        let options = ServerOptions::new().store_threads(1);
        let state = Arc::new(ServerState::new(Arc::new(db), options, None));
        state.gets_in_memory.store(true, Ordering::Relaxed);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let only_thread = Arc::clone(&state.calls).acquire_owned().await.unwrap();
            assert!(state.get(b"small".to_vec()).await.unwrap().is_some());
            assert!(state.get(b"none".to_vec()).await.unwrap().is_none());
            let mut get = std::pin::pin!(state.get(b"large".to_vec()));
            let waits = std::future::poll_fn(|task| Poll::Ready(get.as_mut().poll(task)));
            assert!(waits.await.is_pending());
            drop(only_thread);
            assert!(get.await.unwrap().is_some_and(|(value, _)| value.into_value() == large));
        });
    }

    #[cfg(feature = "lz4")]
    #[test]
    fn a_value_that_has_to_be_decompressed_takes_its_memory_before() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().compression(crate::Compression::lz4());
        let db = Bitcask::open(dir.path(), options).unwrap();
        db.put("k", vec![b'x'; 2 << 20]).unwrap();
        let options = ServerOptions::new().body_memory_limit(1 << 20);
        let state = Arc::new(ServerState::new(Arc::new(db), options, None));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let others = Arc::clone(&state.body_pages).try_acquire_owned().unwrap();
            let refused = state.get(b"k".to_vec()).await.unwrap_err();
            assert_eq!(refused.code, "busy");
            drop(others);
            let (value, _) = state.get(b"k".to_vec()).await.unwrap().unwrap();
            assert_eq!(state.body_memory(), 1 << 20);
            assert_eq!(value.into_value().len(), 2 << 20);
            assert_eq!(state.body_memory(), 0);
        });
    }
}
