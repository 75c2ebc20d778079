//! Followers during everything a store does: random writes, batches, rotations, seals, merges,
//! clears, closes, kills and power cuts.
//!
//! - Each follower keeps a copy of the store and the position that it has reached. Every change
//!   that it receives must be the next one that was committed. When it has received all, its copy
//!   must equal the store.
//! - Resuming must fail if a change that the follower has not received is no longer in the log, or
//!   if one that it received was lost in a power cut, and only then.
//! - The runs are reproducible. `BITCASK_LONG=10` makes ten times as many.

use crate::store::tests::*;

const RUNS: u64 = 60;
const STEPS: usize = 150;

/// A committed change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Committed {
    key: Vec<u8>,
    new: Option<Stored>,
    more: bool,
    /// The position after the change, or after its batch.
    end: Position,
}

/// A follower of the store.
struct Follower {
    copy: Model,
    position: Position,
    changes: Option<Changes>,
    /// Number of committed changes that it has received.
    told: usize,
    durable: bool,
    /// Whether it received a change that was lost in a power cut.
    lost: bool,
}

pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    pub(crate) fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }
}

struct World {
    lab: Lab,
    db: Option<Bitcask>,
    committed: Vec<Committed>,
    followers: Vec<Follower>,
    dice: Dice,
    resyncs: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let options =
            Options::new().segment_size(600 + 100 * (seed % 7)).sync_policy(SyncPolicy::Never);
        let lab = if seed.is_multiple_of(3) { Lab::weak() } else { Lab::new() };
        let lab = lab.with(options).seeded(seed + 1);
        let follower = |durable| Follower {
            copy: Model::new(),
            position: Position::START,
            changes: None,
            told: 0,
            durable,
            lost: false,
        };
        let (db, followers) =
            (Some(lab.open()), vec![follower(false), follower(false), follower(true)]);
        Self { lab, db, committed: Vec::new(), followers, dice: Dice(seed), resyncs: 0 }
    }

    fn db(&self) -> &Bitcask {
        self.db.as_ref().unwrap()
    }

    /// Writes one change or a batch, and records each entry that this appends.
    fn write(&mut self) {
        let len = if self.dice.one_in(4) { self.dice.below(6) } else { 1 };
        let now = self.lab.hands.clock().now();
        let (mut batch, mut news) = (Batch::new(), Vec::<(Vec<u8>, Option<Stored>)>::new());
        let present = raw(self.db());
        for _ in 0..len {
            let key = vec![b'a' + u8::try_from(self.dice.below(8)).unwrap()];
            // The last change of a key in a batch wins.
            news.retain(|(other, _)| *other != key);
            if self.dice.one_in(3) {
                batch.delete(&key);
                news.push((key, None));
                continue;
            }
            let value = vec![b'x'; self.dice.below(90)];
            let ttl = self.dice.one_in(4).then(|| self.dice.below(20) as u64);
            let life = ttl.map(|ttl| WriteOptions::new().ttl(Duration::from_secs(ttl)));
            batch.put_opt(&key, &value, life.unwrap_or_default());
            let expiry = ttl.map(|ttl| now + ttl * 1_000_000);
            news.push((key, Some(Stored { value, expiry })));
        }
        // A delete of an absent key writes nothing.
        news.retain(|(key, new)| new.is_some() || present.contains_key(key));
        self.db().write(&batch).unwrap();
        let (end, last) = (self.db().position(), news.len());
        let number = |(at, (key, new)): (usize, (Vec<u8>, Option<Stored>))| Committed {
            key,
            new,
            more: at + 1 < last,
            end,
        };
        self.committed.extend((0..).zip(news).map(number));
    }

    /// Number of committed changes that are no longer in the log.
    fn gone(&self) -> usize {
        let history = self.db().inner.manifest.get(Manifest::history);
        self.committed.partition_point(|change| change.end.place() <= history)
    }

    /// Resumes a follower if it is not reading, and delivers up to `limit` changes to it.
    fn follow(&mut self, at: usize, limit: usize) {
        let mut follower = self.followers.remove(at);
        for _ in 0..limit {
            let Some(changes) = &mut follower.changes else {
                let resumed = self.db().changes(follower.position);
                let is_told = follower.told >= self.gone() && !follower.lost;
                match resumed {
                    Ok(changes) => {
                        assert!(is_told, "{} of {}", follower.told, self.committed.len());
                        assert_eq!(
                            changes.resume_position().max(follower.position),
                            changes.resume_position()
                        );
                        let changes = if follower.durable { changes.durable() } else { changes };
                        follower.changes = Some(changes);
                    }
                    Err(error) => {
                        assert!(!is_told && error.needs_resync(), "{error}");
                        self.resync(&mut follower);
                    }
                }
                continue;
            };
            match changes.try_recv() {
                Ok(Some(change)) => self.tell(&mut follower, &change),
                Ok(None) => {
                    let all = if follower.durable { follower.told } else { self.committed.len() };
                    assert_eq!(follower.told, all, "the feed ended before the last change");
                    break;
                }
                Err(error) => {
                    assert!(error.needs_resync() && follower.told < self.gone(), "{error}");
                    follower.changes = None;
                }
            }
        }
        if self.dice.one_in(3) {
            follower.changes = None;
        }
        self.followers.insert(at, follower);
    }

    fn tell(&self, follower: &mut Follower, change: &Change) {
        let micros = |at: &std::time::SystemTime| {
            let since = at.duration_since(std::time::UNIX_EPOCH).unwrap();
            u64::try_from(since.as_micros()).unwrap()
        };
        let new = match &change.operation {
            Operation::Put { value, expires_at } => {
                Some(Stored { value: value.to_vec(), expiry: expires_at.as_ref().map(micros) })
            }
            Operation::Delete => None,
        };
        let expected = &self.committed[follower.told];
        assert_eq!(
            (&*change.key, &new, change.batch_continues),
            (&*expected.key, &expected.new, expected.more)
        );
        assert!(follower.position < change.position && change.position <= expected.end);
        if follower.durable {
            let inner = &self.db().inner;
            let sealed =
                inner.manifest.get(|manifest| change.position.place().segment < manifest.log);
            assert!(sealed || change.position.place() <= inner.log().unwrap().durable());
        }
        match new {
            Some(new) => drop(follower.copy.insert(change.key.to_vec(), new)),
            None => drop(follower.copy.remove(&*change.key)),
        }
        follower.told += 1;
        follower.position = change.position;
    }

    /// Resynchronizes a follower whose position was refused.
    fn resync(&mut self, follower: &mut Follower) {
        if follower.durable {
            self.db().sync().unwrap();
        }
        follower.position = self.db().position();
        follower.copy = raw(self.db());
        follower.told = self.committed.len();
        follower.lost = false;
        self.resyncs += 1;
    }

    /// Delivers all changes to all followers, whose copies must then equal the store.
    fn check(&mut self) {
        let now = self.lab.hands.clock().now();
        for at in 0..self.followers.len() {
            if self.followers[at].durable {
                self.db().sync().unwrap();
            }
            self.follow(at, usize::MAX);
            let follower = &self.followers[at];
            assert_eq!(follower.told, self.committed.len());
            assert_eq!(visible(&follower.copy, now), visible(&raw(self.db()), now));
        }
    }

    fn merge(&mut self) {
        let chosen = self.dice.below(usize::MAX >> 33) as u64;
        let mut merge = begin_merge(self.db(), chosen | chosen << 31);
        let steps = if self.dice.one_in(2) { usize::MAX } else { self.dice.below(9) };
        let step = |merge: &mut Merge| merge.step(&*self.db().inner).unwrap().is_some();
        let _ = (0..steps).all(|_| step(&mut merge));
        merge.publish(&*self.db().inner).unwrap();
        self.db().inner.segments.free_retired();
    }

    /// Continues with another disk, which may have lost the last changes.
    fn move_to(&mut self, lab: Lab) {
        self.followers.iter_mut().for_each(|follower| follower.changes = None);
        kill(self.db.take().unwrap());
        self.lab = lab;
        self.db = Some(self.lab.open());
        let end = self.db().position();
        self.committed.retain(|change| change.end <= end);
        let mut left = Model::new();
        for Committed { key, new, .. } in &self.committed {
            match new {
                Some(new) => drop(left.insert(key.clone(), new.clone())),
                None => drop(left.remove(key)),
            }
        }
        let now = self.lab.hands.clock().now();
        assert_eq!(visible(&left, now), visible(&raw(self.db()), now), "the end of the log");
        for follower in &mut self.followers {
            follower.lost |= follower.told > self.committed.len();
            assert!(
                !follower.durable || !follower.lost,
                "a durable follower received a change that was lost"
            );
        }
    }

    fn step(&mut self) {
        match self.dice.below(40) {
            0..=17 => self.write(),
            18..=23 => {
                let (at, limit) = (self.dice.below(3), self.dice.below(20));
                self.follow(at, limit);
            }
            24..=25 => self.check(),
            26..=28 => drop(self.db().inner.work()),
            29 => self.db().inner.log().unwrap().rotate_active().unwrap(),
            30 => {
                self.db().sync().unwrap();
                self.db().inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
            }
            31..=33 => self.merge(),
            34 if self.dice.one_in(3) => {
                let before = self.db().position();
                self.db().clear().unwrap();
                let end = self.db().position();
                if end == before {
                    // The store was empty, so the clear did nothing.
                    return;
                }
                // None of these changes is in the log, so no follower can receive them.
                let keys: Vec<Vec<u8>> = (b'a'..=b'h').map(|key| vec![key]).collect();
                let cleared = |key| Committed { key, new: None, more: false, end };
                self.committed.extend(keys.into_iter().map(cleared));
            }
            35 => self.lab.hands.advance(Duration::from_secs(3)),
            36 => {
                let mut following: Vec<_> = self.followers.iter_mut().collect();
                let held: Vec<_> = following.iter_mut().map(|it| it.changes.take()).collect();
                self.db.take().unwrap().close().unwrap();
                self.db = Some(self.lab.open());
                // The changes left when the store was closed are still delivered.
                for (at, changes) in held.into_iter().enumerate() {
                    let Some(mut changes) = changes else { continue };
                    let mut follower = self.followers.remove(at);
                    while let Ok(Some(change)) = changes.recv() {
                        self.tell(&mut follower, &change);
                    }
                    self.followers.insert(at, follower);
                }
            }
            37 => {
                let lab = self.lab.killed();
                self.move_to(lab);
            }
            38 => {
                let kept = self.dice.below(4);
                let mut dice = Dice(self.dice.0);
                let lab = self.lab.powered_off(|_| dice.below(4) < kept);
                self.move_to(lab);
            }
            _ => {}
        }
    }
}

#[test]
fn followers_receive_every_change_once_and_in_order_or_have_to_resync() {
    let long: u64 = std::env::var("BITCASK_LONG").map_or(1, |long| long.parse().unwrap());
    let (mut resyncs, mut committed) = (0, 0);
    for seed in 0..RUNS * long {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.check();
        resyncs += world.resyncs;
        committed += world.committed.len();
    }
    assert!(resyncs > 50 && committed > 2000, "{resyncs} resyncs of {committed} changes");
}
