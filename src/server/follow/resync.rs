//! All of the leader's data anew: a snapshot is received, and then takes the place of what is here.
//!
//! 1. The snapshot is received into a file, and checked. The store keeps its data meanwhile, and
//!    its readers. If the leader goes away, nothing has happened.
//! 2. The file is made durable under its final name.
//! 3. Readers have to leave. The store is cleared and filled from the file. The last batch has the
//!    snapshot's position, and is durable.
//! 4. The file is removed, and readers may come back.
//!
//! After a crash in step 3, the file is still there, and step 3 begins again, without the leader.

use super::group::{add_change, lifetime};
use super::puller::{Puller, Trouble};
use super::record::{FOLLOW_KEY, FollowRecord};
use super::spool::{SnapshotFrames, SpoolReader};
use crate::error::Error;
use crate::options::WriteOptions;
use crate::server::frames::{Frame, FrameError, FrameKind};
use crate::store::{Batch, Position};

/// Size of a batch in which the store is filled, in bytes.
const BATCH_SIZE: u64 = 4 << 20;

impl Puller {
    /// Replaces the store's data by the leader's. Returns the position of that data.
    pub(super) fn resync(&mut self) -> Result<Position, Trouble> {
        let leader = self.replica.leader();
        tracing::info!(target: "bitcask::server", event = "resync_started", leader);
        self.replica.note_resyncing(true);
        let fetched = self.fetch();
        if fetched.is_err() {
            self.spool.discard();
        }
        fetched?;
        self.load()
    }

    /// Receives a snapshot.
    fn fetch(&mut self) -> Result<(), Trouble> {
        let link = self.leader.open("/v1/snapshot", &self.stop)?;
        self.replica.note_connected(true);
        let mut frames = SnapshotFrames::new(link);
        let mut writer = self.spool.begin()?;
        loop {
            let next = frames.next().map_err(|error| {
                if self.stop.is_raised() {
                    Trouble::Stopped
                } else {
                    Trouble::Failed(format!("the snapshot has broken off: {error}"))
                }
            })?;
            let Some((frame, header)) = next else { break };
            self.has_progressed = true;
            writer.write(&header, &frame)?;
        }
        Ok(self.spool.complete(writer)?)
    }

    /// Fills the store from the snapshot that has been received.
    pub(super) fn load(&mut self) -> Result<Position, Trouble> {
        if let Err(error) = self.check_spool() {
            return Err(self.refuse_spool(&error));
        }
        let was_loading = self.replica.is_loading();
        self.replica.begin_loading();
        if !self.replica.wait_for_readers(|| self.stop.is_raised()) {
            if !was_loading {
                self.replica.end_loading();
            }
            return Err(Trouble::Stopped);
        }
        let position = self.fill()?;
        self.spool.remove()?;
        self.position = Some(position);
        self.replica.note_position(position, 0);
        self.replica.note_resynced();
        self.replica.note_resyncing(false);
        self.replica.end_loading();
        let leader = self.replica.leader();
        tracing::info!(target: "bitcask::server", event = "resync_done", leader, %position);
        Ok(position)
    }

    fn frames(&self) -> Result<SnapshotFrames<SpoolReader>, Error> {
        Ok(SnapshotFrames::new(self.spool.read()?))
    }

    /// Reads all of the snapshot before anything is removed for it.
    fn check_spool(&self) -> Result<(), FrameError> {
        let mut frames =
            self.frames().map_err(|error| FrameError::Stream(std::io::Error::other(error)))?;
        while frames.next()?.is_some() {}
        Ok(())
    }

    /// Removes a snapshot that is damaged. The store keeps its data, if that is complete.
    fn refuse_spool(&mut self, error: &FrameError) -> Trouble {
        let is_damaged = match error {
            FrameError::Broken(_) => true,
            FrameError::Stream(error) => error.kind() == std::io::ErrorKind::UnexpectedEof,
        };
        if is_damaged {
            if let Err(error) = self.spool.remove() {
                return error.into();
            }
            let record = FollowRecord::read(&self.db);
            if matches!(record, Ok(Some(FollowRecord::Following(_)))) {
                self.replica.end_loading();
            }
            self.position = None;
        }
        Trouble::Failed(format!("the snapshot that was received is damaged: {error}"))
    }

    /// Clears the store, and fills it.
    fn fill(&self) -> Result<Position, Trouble> {
        let damaged = |error| Trouble::Failed(format!("cannot read the snapshot: {error}"));
        let mut frames = self.frames()?;
        self.db.clear()?;
        self.write_record(FollowRecord::Loading)?;
        let (mut batch, mut position) = (Batch::new(), None);
        while let Some((frame, _)) = frames.next().map_err(damaged)? {
            if self.stop.is_raised() {
                return Err(Trouble::Stopped);
            }
            match frame.kind {
                FrameKind::Position => position = Some(frame.position),
                FrameKind::Put if frame.key != FOLLOW_KEY => self.fill_one(&mut batch, &frame)?,
                FrameKind::Put | FrameKind::Delete | FrameKind::Failure | FrameKind::End => {}
            }
        }
        self.write_part(&mut batch)?;
        let Some(position) = position else {
            return Err(Trouble::Failed("the snapshot has no position".into()));
        };
        FollowRecord::Following(position).add_to(&mut batch);
        self.db.write_opt(&batch, WriteOptions::new().durable(true))?;
        Ok(position)
    }

    fn fill_one(&self, batch: &mut Batch, frame: &Frame) -> Result<(), Trouble> {
        if frame.value.len() as u64 >= BATCH_SIZE {
            let options = lifetime(frame).durable(false);
            return Ok(self.db.put_opt(&frame.key, &frame.value, options)?);
        }
        add_change(batch, frame);
        if batch.size() >= BATCH_SIZE {
            self.write_part(batch)?;
        }
        Ok(())
    }

    /// Writes what has been gathered. The last batch of all makes it durable.
    fn write_part(&self, batch: &mut Batch) -> Result<(), Trouble> {
        self.db.write_opt(batch, WriteOptions::new().durable(false))?;
        batch.clear();
        Ok(())
    }
}
