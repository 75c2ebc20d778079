//! How values are compressed.

use crate::codec::Codec;

/// How values are compressed before they are appended.
///
/// The writing thread compresses each value separately, before it takes any lock. A value is stored
/// uncompressed unless compression makes its whole entry smaller. Size limits apply to the
/// uncompressed value.
///
/// Each read of a compressed value decompresses it into newly allocated memory. Other values are
/// lent without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Values are stored as they are.
    #[default]
    None,
    /// LZ4, in blocks: fast, and effective for text and other repetitive data. Needs the feature
    /// `lz4`.
    ///
    /// ```
    /// use bitcask::{Bitcask, Compression, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let options = Options::default().compression(Compression::lz4());
    /// let db = Bitcask::open(dir.path(), options)?;
    /// let page = "all work and no play ".repeat(100);
    /// db.put("page", &page)?;
    /// assert_eq!(db.get("page")?.expect("it was just put"), page);
    /// assert!(db.stats().live_size < 100);
    /// # db.close()
    /// # }
    /// ```
    #[cfg(feature = "lz4")]
    Lz4 {
        /// Minimum size of the values to compress, in bytes.
        size_min: u32,
    },
}

impl Compression {
    /// Returns LZ4 for values of 256 bytes or more. Needs the feature `lz4`.
    #[cfg(feature = "lz4")]
    pub fn lz4() -> Self {
        Self::Lz4 { size_min: 256 }
    }

    /// Returns the codec and the minimum size of the values that it compresses.
    pub(crate) fn codec(self) -> Option<(Codec, u64)> {
        match self {
            Self::None => None,
            #[cfg(feature = "lz4")]
            Self::Lz4 { size_min } => Some((Codec::Lz4, size_min.into())),
        }
    }

    /// Returns every kind of compression in this build, for values of any size.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::None,
            #[cfg(feature = "lz4")]
            Self::Lz4 { size_min: 0 },
        ]
    }
}
