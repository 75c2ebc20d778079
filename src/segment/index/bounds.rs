//! A range of keys, and the direction in which it is scanned.

use std::ops::{Bound, RangeBounds};

use super::block::SeekTarget;
use super::gaps::Edge;

/// The direction of an ordered scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the lowest key up.
    Forward,
    /// From the highest key down.
    Backward,
}

impl Direction {
    pub(super) fn opposite(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
        }
    }
}

/// Both ends of a range of keys.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) start: Bound<Vec<u8>>,
    pub(crate) end: Bound<Vec<u8>>,
}

impl From<(Bound<Vec<u8>>, Bound<Vec<u8>>)> for Bounds {
    fn from((start, end): (Bound<Vec<u8>>, Bound<Vec<u8>>)) -> Self {
        Self { start, end }
    }
}

impl Bounds {
    /// Returns bounds that no key lies within.
    pub(crate) fn nothing() -> Self {
        Self { start: Bound::Included(Vec::new()), end: Bound::Excluded(Vec::new()) }
    }

    /// Returns whether a key lies within the bounds.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let (start, end) = (self.start.as_ref(), self.end.as_ref());
        let bounds = (start.map(Vec::as_slice), end.map(Vec::as_slice));
        // Crates of some features add types that bytes can be compared with.
        RangeBounds::<[u8]>::contains(&bounds, key)
    }

    /// Returns whether the bounds end before they start, or where they start without including a
    /// key. A `BTreeMap` panics on some of these.
    pub(crate) fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (
                Bound::Included(start) | Bound::Excluded(start),
                Bound::Included(end) | Bound::Excluded(end),
            ) => start >= end,
            _ => false,
        }
    }

    pub(super) fn start_target(&self) -> Option<SeekTarget<'_>> {
        match &self.start {
            Bound::Included(key) => Some(SeekTarget::before(key)),
            Bound::Excluded(key) => Some(SeekTarget::behind(key)),
            Bound::Unbounded => None,
        }
    }

    pub(super) fn end_target(&self) -> Option<SeekTarget<'_>> {
        match &self.end {
            Bound::Included(key) => Some(SeekTarget::behind(key)),
            Bound::Excluded(key) => Some(SeekTarget::before(key)),
            Bound::Unbounded => None,
        }
    }

    /// Returns whether this key and all higher keys lie beyond the end.
    pub(crate) fn ends_before(&self, key: &[u8]) -> bool {
        match &self.end {
            Bound::Included(end) => end.as_slice() < key,
            Bound::Excluded(end) => end.as_slice() <= key,
            Bound::Unbounded => false,
        }
    }

    /// Returns whether this key and all lower keys lie before the start.
    pub(crate) fn starts_after(&self, key: &[u8]) -> bool {
        match &self.start {
            Bound::Included(start) => start.as_slice() > key,
            Bound::Excluded(start) => start.as_slice() >= key,
            Bound::Unbounded => false,
        }
    }

    /// Returns the edge at which a scan in this direction begins.
    pub(super) fn edge(&self, direction: Direction) -> Edge {
        let (bound, is_start) = match direction {
            Direction::Forward => (&self.start, true),
            Direction::Backward => (&self.end, false),
        };
        match bound {
            Bound::Included(key) => Edge::At(key.clone(), !is_start),
            Bound::Excluded(key) => Edge::At(key.clone(), is_start),
            Bound::Unbounded if is_start => Edge::Lowest,
            Bound::Unbounded => Edge::Highest,
        }
    }

    /// Returns the part that lies ahead of an edge, or `None` if nothing does.
    pub(super) fn ahead_of(&self, edge: &Edge, direction: Direction) -> Option<Self> {
        let bound = |is_start: bool| match edge {
            Edge::At(key, is_behind) if *is_behind == is_start => Bound::Excluded(key.clone()),
            Edge::At(key, _) => Bound::Included(key.clone()),
            Edge::Lowest | Edge::Highest => Bound::Unbounded,
        };
        let end = self.edge(direction.opposite());
        match direction {
            Direction::Forward => {
                (*edge < end).then(|| Self { start: bound(true), end: self.end.clone() })
            }
            Direction::Backward => {
                (*edge > end).then(|| Self { start: self.start.clone(), end: bound(false) })
            }
        }
    }
}
