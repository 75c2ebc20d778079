//! In which order merges write what they copy.

use super::{AutoMerge, MergeOptions};

impl AutoMerge {
    /// Sets whether merges write live entries in the order of their keys. Default: they do so once
    /// the store was scanned in order, now or before it was last opened.
    ///
    /// An ordered scan reads its values from wherever they lie in the log. After an ordered merge,
    /// keys that are neighbours in the order mostly lie next to each other. With ten million keys
    /// in memory, a long ordered scan with values then takes a quarter less time, and a scan of a
    /// short prefix a third more. Gets and writes are the same. An ordered merge takes longer, and
    /// up to 64 MiB of memory more: it sorts as many live entries at a time as fit into that.
    ///
    /// Each merge orders only what it copies. To bring a whole store into order at once, see
    /// [`MergeOptions::ordered`].
    pub fn ordered(mut self, yes: bool) -> Self {
        self.ordered = Some(yes);
        self
    }
}

impl MergeOptions<'_> {
    /// Sets whether this merge writes live entries in the order of their keys; see
    /// [`AutoMerge::ordered`]. Default: as the merge policy says.
    ///
    /// Together with [`force`](Self::force), this brings the whole store into order:
    ///
    /// ```
    /// # use bitcask::{Bitcask, MergeOptions, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// for user in ["carol", "alice", "bob"] {
    ///     db.put(user, "loaded in any order")?;
    /// }
    /// db.merge_opt(MergeOptions::new().force(true).ordered(true))?;
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "cluster")]
    pub fn ordered(mut self, yes: bool) -> Self {
        self.ordered = Some(yes);
        self
    }
}
