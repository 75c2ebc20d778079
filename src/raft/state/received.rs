//! Snapshots that have arrived, before openraft hears of them. It stops a group for good if one
//! cannot be installed.

use std::ops::ControlFlow;

use openraft::{Entry, RaftTypeConfig, SnapshotMeta};

use super::StateMachine;
use super::apply::{Apply, applied_to};
use super::files::SnapshotFiles;
use crate::clock::GivenTime;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::repair::verify::verify_with_on;
use crate::store::{Damage, Env, ReadOnly, damage};

impl<C, A> StateMachine<C, A>
where
    C: RaftTypeConfig<Entry = Entry<C>, SnapshotData = SnapshotFiles>,
    A: Apply<C>,
{
    /// Begins to receive a snapshot, as openraft does. But if that fails, nothing else does.
    pub(crate) fn receive(&self) -> Result<SnapshotFiles> {
        self.0.begin_receiving()
    }

    /// Reads all of a snapshot that has arrived, to which nothing more can be written from now on.
    /// Returns what is wrong with it, if anything is. The closure, which is asked while segments
    /// are read and between the other parts, ends this early by returning `true`.
    ///
    /// Hints and indexes that do not match are removed: the store builds them anew.
    pub(crate) fn find_damage(
        &self,
        meta: &SnapshotMeta<C::NodeId, C::Node>,
        files: &SnapshotFiles,
        ends: impl Fn() -> bool,
    ) -> Result<Option<String>> {
        files.seal();
        if ends() {
            return Ok(None);
        }
        let env = &self.0.env;
        let diagnosis = verify_with_on(env, files.path(), &mut |_| {
            if ends() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let diagnosis = match diagnosis {
            Err(Error::NotFound { .. }) => return Ok(Some("it has no files".to_owned())),
            diagnosis => diagnosis?,
        };
        if let Some(damage) = diagnosis.damage.iter().chain(&diagnosis.torn).next() {
            return Ok(Some(place(damage)));
        }
        if diagnosis.cancelled {
            return Ok(None);
        }
        if let Err(error) = diagnosis.opening {
            return Ok(Some(place(&damage(error, 0)?)));
        }
        for damage in &diagnosis.derived {
            if env.fs.exists(&damage.path) {
                env.fs.remove(&damage.path)?;
            }
        }
        if ends() {
            return Ok(None);
        }
        let env = Env { clock: GivenTime::default().clock(), ..env.clone() };
        let store = ReadOnly::open_on(&env, files.path(), Options::default())?;
        Ok(applied_to::<C>(&store)?.difference(meta))
    }
}

/// Says where damage is, in the words of the node that has sent it: its directory is another one.
fn place(damage: &Damage) -> String {
    let name = damage.path.file_name().unwrap_or_default().to_string_lossy();
    format!("{name} at offset {}: {}", damage.offset, damage.reason)
}
