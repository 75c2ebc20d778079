//! How values are compressed.

#[cfg(any(feature = "lz4", feature = "zstd"))]
use crate::codec::Codec;
use crate::codec::Compressor;
use crate::error::{Error, Result};

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
    /// Zstandard: smaller than LZ4 and several times slower. Needs the feature `zstd`, which builds
    /// the library of the same name and needs a C compiler.
    ///
    /// Each thread that compresses or decompresses keeps the memory for it until the thread ends:
    /// up to some MiB at level 3 if its values are that large, more at higher levels.
    ///
    /// ```
    /// use bitcask::{Bitcask, Compression, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let options = Options::default().compression(Compression::zstd());
    /// let db = Bitcask::open(dir.path(), options)?;
    /// let page = "all work and no play ".repeat(100);
    /// db.put("page", &page)?;
    /// assert_eq!(db.get("page")?.expect("it was just put"), page);
    /// assert!(db.stats().live_size < 100);
    /// # db.close()
    /// # }
    /// ```
    #[cfg(feature = "zstd")]
    Zstd {
        /// The level, 1 to 22: higher levels compress better and more slowly; levels below 0
        /// compress less and faster. 0 is the library's default.
        level: i32,
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

    /// Returns Zstandard at level 3 for values of 256 bytes or more. Needs the feature `zstd`.
    #[cfg(feature = "zstd")]
    pub fn zstd() -> Self {
        Self::Zstd { level: 3, size_min: 256 }
    }

    /// Returns how to compress values, and the minimum size of the values to compress.
    #[inline]
    pub(crate) fn compressor(self) -> Option<(Compressor, u64)> {
        match self {
            Self::None => None,
            #[cfg(feature = "lz4")]
            Self::Lz4 { size_min } => {
                Some((Compressor { codec: Codec::Lz4, level: 0 }, size_min.into()))
            }
            #[cfg(feature = "zstd")]
            Self::Zstd { level, size_min } => {
                Some((Compressor { codec: Codec::Zstd, level }, size_min.into()))
            }
        }
    }

    pub(super) fn check(self) -> Result<()> {
        if self.compressor().is_none_or(|(compressor, _)| compressor.is_valid()) {
            return Ok(());
        }
        Err(Error::InvalidOption {
            name: "compression",
            value: format!("{self:?}"),
            reason: "Zstandard has no such level; levels 1 to 22 are usual",
        })
    }

    /// Returns every kind of compression in this build, for values of any size.
    #[cfg(any(test, bitcask_fuzzing))]
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::None,
            #[cfg(feature = "lz4")]
            Self::Lz4 { size_min: 0 },
            #[cfg(feature = "zstd")]
            Self::Zstd { level: 3, size_min: 0 },
        ]
    }
}
