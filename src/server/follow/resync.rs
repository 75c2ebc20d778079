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

use std::io;

use super::group::{add_change, lifetime};
use super::puller::{Puller, Trouble, too_large};
use super::record::FollowRecord;
use super::spool::{SnapshotFrames, SpoolReader};
use crate::error::Error;
use crate::followed::FOLLOW_KEY;
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
        if self.replica.resync_reason().is_none() {
            self.replica.note_resync_reason("new");
        }
        let fetched = self.fetch();
        if fetched.is_err() {
            self.spool.discard();
        }
        fetched?;
        self.load()
    }

    /// Receives a snapshot.
    fn fetch(&mut self) -> Result<(), Trouble> {
        let link = self.leader.open("/v1/snapshot", None, &self.stop)?;
        self.check_limits(&link)?;
        self.lease = link.limits().lease;
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
            self.check_size(&frame)?;
            writer.write(&header, &frame)?;
        }
        self.spool.complete(writer)?;
        self.has_progressed = true;
        Ok(())
    }

    /// Fills the store from the snapshot that has been received.
    pub(super) fn load(&mut self) -> Result<Position, Trouble> {
        self.check_spool()?;
        let was_loading = self.replica.is_loading();
        self.replica.begin_loading();
        let is_alone = self.replica.wait_for_readers(|| self.stop.is_raised());
        // From here on, the old data is gone.
        if !is_alone || self.stop.is_raised() {
            if !was_loading {
                self.replica.end_loading();
            }
            return Err(Trouble::Stopped);
        }
        let position = self.fill()?;
        self.spool.remove()?;
        self.position = Some(position);
        self.replica.note_position(position, 0);
        // A snapshot that an earlier process has received is loaded without a request.
        if self.replica.resync_reason().is_none() {
            self.replica.note_resync_reason("new");
        }
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

    /// Reads all of the snapshot before anything is removed for it. It may be large, so the owner
    /// does not wait for its end.
    fn check_spool(&mut self) -> Result<(), Trouble> {
        let mut frames = match self.frames() {
            Ok(frames) => frames,
            Err(error) => {
                return Err(self.refuse_spool(&FrameError::Stream(io::Error::other(error))));
            }
        };
        loop {
            if self.stop.is_raised() {
                return Err(Trouble::Stopped);
            }
            match frames.next() {
                // The options may be other ones than when it was received.
                Ok(Some((frame, _))) => {
                    if let Err(stuck) = self.check_size(&frame) {
                        return Err(self.remove_spool().err().unwrap_or(stuck));
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.refuse_spool(&error)),
            }
        }
    }

    /// Removes a snapshot that is damaged.
    fn refuse_spool(&mut self, error: &FrameError) -> Trouble {
        let is_damaged = match error {
            FrameError::Broken(_) => true,
            FrameError::Stream(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        };
        if is_damaged && let Err(trouble) = self.remove_spool() {
            return trouble;
        }
        Trouble::Failed(format!("the snapshot that was received is damaged: {error}"))
    }

    /// Removes a snapshot that cannot be used. The store keeps its data, if that is complete.
    fn remove_spool(&mut self) -> Result<(), Trouble> {
        self.spool.remove()?;
        let record = FollowRecord::read(&self.db);
        if matches!(record, Ok(Some(FollowRecord::Following(_)))) {
            self.replica.end_loading();
        }
        self.position = None;
        Ok(())
    }

    /// Returns an error if this store refuses a key or a value.
    fn check_size(&self, frame: &Frame) -> Result<(), Trouble> {
        let options = self.db.options();
        for (what, part, limit) in [
            ("key", &frame.key, options.get_key_size_limit()),
            ("value", &frame.value, options.get_value_size_limit()),
        ] {
            let size = part.len() as u64;
            if size > limit {
                return Err(too_large(what, size, limit));
            }
        }
        Ok(())
    }

    /// Clears the store, and fills it.
    fn fill(&self) -> Result<Position, Trouble> {
        let damaged = |error| Trouble::Failed(format!("cannot read the snapshot: {error}"));
        let mut frames = self.frames()?;
        self.db.clear()?;
        FollowRecord::Loading.write_to(&self.db, self.replica.leader())?;
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
        FollowRecord::Following(position).add_to(&mut batch, self.replica.leader());
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::path::Path;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::fs::Fs;
    use crate::options::Options;
    use crate::replica::Replica;
    use crate::server::follow::FollowOptions;
    use crate::server::follow::link::Leader;
    use crate::server::follow::spool::Spool;
    use crate::server::follow::stopping::FollowStop;
    use crate::server::frames::{FrameLag, SnapshotSum};
    use crate::store::{Bitcask, Env};
    use crate::testing::twin::Twin;

    fn puller(db: &Arc<Bitcask>) -> Puller {
        puller_of(db, "http://127.0.0.1:1".to_owned())
    }

    fn puller_of(db: &Arc<Bitcask>, url: String) -> Puller {
        Puller {
            db: Arc::clone(db),
            leader: Leader::new(url.clone(), &FollowOptions::new(&url)).unwrap(),
            replica: Replica::new(url),
            spool: Spool::new(db.path()),
            stop: FollowStop::default(),
            pauses: (Duration::from_millis(1), Duration::from_millis(1)),
            position: None,
            lease: None,
            has_progressed: false,
        }
    }

    fn frame(kind: FrameKind, key: &[u8], value: Vec<u8>) -> Frame {
        let (position, key) = (Position::from_bytes([7; 16]), key.to_vec());
        Frame { kind, continues: false, expiry: None, position, key, value }
    }

    /// Starts a leader that answers one request with these frames, and breaks off. Returns its URL.
    fn leader(frames: &[Frame]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
        for frame in frames {
            for part in [&frame.header()[..], &frame.key, &frame.value] {
                answer.extend_from_slice(part);
            }
        }
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut piece) = (Vec::new(), [0; 1024]);
            while !request.ends_with(b"\r\n\r\n") {
                let size = stream.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..size]);
            }
            stream.write_all(&answer).unwrap();
        });
        url
    }

    /// Writes a snapshot with one key. Its end has a wrong checksum if it is to be damaged.
    fn receive(spool: &Spool, is_damaged: bool, value: &[u8]) {
        let (mut writer, mut sum) = (spool.begin().unwrap(), SnapshotSum::default());
        for frame in [
            frame(FrameKind::Position, b"", Vec::new()),
            frame(FrameKind::Put, b"new", value.to_vec()),
        ] {
            sum.add(&frame.header());
            writer.write(&frame.header(), &frame).unwrap();
        }
        if is_damaged {
            sum.add(&frame(FrameKind::Delete, b"", Vec::new()).header());
        }
        let end = frame(FrameKind::End, b"", sum.finish());
        writer.write(&end.header(), &end).unwrap();
        spool.complete(writer).unwrap();
    }

    /// A follower that is stopped, or promoted, must not read gigabytes first. If it did here, it
    /// would find the damage.
    #[test]
    fn a_follower_that_has_to_end_reads_no_more_of_its_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let db = Arc::new(Bitcask::open(dir.path(), Options::new()).unwrap());
        db.put("old", "1").unwrap();
        let mut puller = puller(&db);
        for is_damaged in [true, false] {
            receive(&puller.spool, is_damaged, b"1");
            puller.stop.raise();
            assert!(matches!(puller.load(), Err(Trouble::Stopped)));
            assert!(puller.spool.is_complete());
            assert!(!puller.replica.is_loading());
            assert_eq!(db.get("old").unwrap().unwrap(), "1");
        }
        puller.stop = FollowStop::default();
        assert_eq!(puller.load().unwrap(), Position::from_bytes([7; 16]));
        assert_eq!(db.get("new").unwrap().unwrap(), "1");
        assert_eq!(db.get("old").unwrap(), None);
        let replica = &puller.replica;
        assert_eq!((replica.resyncs(), replica.resync_reason()), (1, Some("new")));
    }

    /// A leader of another version does not tell its limits.
    #[test]
    fn a_value_that_is_too_large_is_found_before_the_old_data_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().value_size_limit(100);
        let db = Arc::new(Bitcask::open(dir.path(), options).unwrap());
        let mut puller = puller(&db);
        let record = FollowRecord::Following(Position::from_bytes([1; 16]));
        record.write_to(&db, "http://127.0.0.1:1").unwrap();
        db.put("old", "1").unwrap();
        receive(&puller.spool, false, &[b'x'; 101]);
        let Err(Trouble::Stuck(error)) = puller.load() else { panic!("it is not stuck") };
        assert!(error.contains("a value of 101 bytes, and value-size-limit is 100"), "{error}");
        assert!(!puller.spool.is_complete() && !puller.replica.is_loading());
        assert_eq!(db.get("old").unwrap().unwrap(), "1");
    }

    #[test]
    fn a_change_that_is_too_large_is_no_passing_trouble() {
        for error in
            [Error::KeyTooLarge { size: 2, limit: 1 }, Error::ValueTooLarge { size: 2, limit: 1 }]
        {
            assert!(matches!(Trouble::from(error), Trouble::Stuck(_)));
        }
    }
    /// Otherwise its pauses would not grow, however often it fails.
    #[test]
    fn a_follower_on_a_full_disk_has_made_no_progress() {
        let (dir, twin) = (tempfile::tempdir().unwrap(), Twin::new());
        let env = Env { fs: Fs::Twin(Arc::clone(&twin)), ..Env::default() };
        let options = Options::new().segment_size(1 << 16);
        let db = Arc::new(Bitcask::open_on(&env, Path::new("/store"), options).unwrap());
        let lag = FrameLag { size: 1, changes: 1, age: 1 }.encode();
        let frames = [
            frame(FrameKind::Position, b"", lag),
            frame(FrameKind::Put, b"k", vec![b'v'; 1 << 20]),
        ];
        for (space, has_progressed) in [(0, false), (u64::MAX, true)] {
            twin.set_space(space);
            let mut puller = puller_of(&db, leader(&frames));
            puller.spool = Spool::new(dir.path());
            // The position is in the same segment as that of the report.
            puller.position = Some(Position::from_bytes([7; 16]));
            let Err(Trouble::Failed(error)) = puller.receive(Position::START) else {
                panic!("it has not failed")
            };
            assert_eq!(error.contains("space"), !has_progressed, "{error}");
            assert_eq!(puller.has_progressed, has_progressed);
            // A snapshot that breaks off.
            let mut puller = puller_of(&db, leader(&frames));
            puller.spool = Spool::new(dir.path());
            puller.fetch().unwrap_err();
            assert!(!puller.has_progressed);
        }
    }
}
