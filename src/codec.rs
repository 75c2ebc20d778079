//! Compression of values: the codecs and their numbers.
//!
//! - Two bits of an entry's flags name the codec; zero means that the value is stored uncompressed.
//! - `Codec` lists only the codecs of this build. Entries that name another codec are refused
//!   before they reach this module.
//! - Stored bytes are not trusted. Decompression returns exactly the requested size or an error,
//!   and allocates no more than the stored bytes can expand to. It never panics.

#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "zstd")]
mod zstd;

/// The algorithm that compressed a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    #[cfg(feature = "lz4")]
    Lz4,
    #[cfg(feature = "zstd")]
    Zstd,
}

/// How to compress a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compressor {
    pub(crate) codec: Codec,
    /// How hard to try, for a codec that has levels.
    pub(crate) level: i32,
}

impl Codec {
    /// Returns the codec with a non-zero number, or `None` if this build does not include it. The
    /// numbers are stored on disk: never renumber.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        match number {
            #[cfg(feature = "lz4")]
            1 => Some(Self::Lz4),
            #[cfg(feature = "zstd")]
            2 => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => 1,
            #[cfg(feature = "zstd")]
            Self::Zstd => 2,
        }
    }
}

#[cfg_attr(not(feature = "zstd"), expect(unused_variables, reason = "other codecs use fewer"))]
impl Codec {
    fn compress(self, raw: &[u8], level: i32) -> Option<Vec<u8>> {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => lz4::compress(raw),
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::compress(raw, level),
        }
    }

    /// Decompresses a value of a known size, or returns why the stored bytes are invalid.
    pub(crate) fn decompress(self, stored: &[u8], raw_size: u32) -> Result<Vec<u8>, &'static str> {
        if u64::from(raw_size) > self.raw_size_max(stored) {
            return Err(
                "the uncompressed size is larger than its codec can produce from these bytes",
            );
        }
        let size = raw_size as usize;
        let mut raw = reserved(size).ok_or("the decompressed value does not fit in memory")?;
        self.expand(stored, &mut raw).ok_or("the compressed value can't be decompressed")?;
        if raw.len() == size {
            return Ok(raw);
        }
        Err("the compressed value does not have the size that the entry says")
    }

    /// Decompresses into memory of sufficient capacity. Returns `None` if the stored bytes are
    /// invalid or do not fit.
    #[cfg_attr(
        not(any(feature = "lz4", feature = "zstd")),
        expect(clippy::ptr_arg, reason = "every codec needs the capacity")
    )]
    fn expand(self, stored: &[u8], raw: &mut Vec<u8>) -> Option<()> {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => lz4::decompress(stored, raw),
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::decompress(stored, raw),
        }
    }

    /// Returns the largest size that stored bytes can expand to.
    fn raw_size_max(self, stored: &[u8]) -> u64 {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => lz4::raw_size_max(stored),
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::raw_size_max(stored),
        }
    }
}

impl Compressor {
    /// Compresses a value. Returns `None` if the codec can't compress it or memory is short. The
    /// result may be larger than the input.
    pub(crate) fn compress(self, raw: &[u8]) -> Option<Vec<u8>> {
        let mut stored = self.codec.compress(raw, self.level)?;
        // A batch may hold many of these.
        stored.shrink_to_fit();
        Some(stored)
    }

    /// Returns whether the codec has the level.
    pub(crate) fn is_valid(self) -> bool {
        match self.codec {
            #[cfg(feature = "lz4")]
            Codec::Lz4 => true,
            #[cfg(feature = "zstd")]
            Codec::Zstd => ::zstd::compression_level_range().contains(&self.level),
        }
    }
}

/// Returns memory for this many bytes, or `None` if memory is short.
fn reserved(size: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Compression;

    /// Returns the compressors of this build.
    fn compressors() -> impl Iterator<Item = Compressor> {
        let all = Compression::all().into_iter();
        all.filter_map(Compression::compressor).map(|(compressor, _)| compressor)
    }

    /// Values of all kinds: empty, short, runs, repeats, and incompressible ones.
    fn values() -> Vec<Vec<u8>> {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        let mut values = Vec::new();
        for size in [0, 1, 4, 12, 13, 14, 64, 255, 1000, 70_000] {
            values.push(vec![7; size]);
            values.push(b"abcdefg".iter().copied().cycle().take(size).collect());
            values.push((0..size).map(|_| noise()).collect());
        }
        values
    }

    #[test]
    fn decompression_restores_the_value() {
        for compressor in compressors() {
            let codec = compressor.codec;
            assert_eq!(Codec::from_number(codec.number()), Some(codec));
            for raw in values() {
                let stored = compressor.compress(&raw).unwrap();
                let size = u32::try_from(raw.len()).unwrap();
                assert!(codec.decompress(&stored, size).unwrap() == raw, "{size}");
                assert!(codec.decompress(&stored, size + 1).is_err());
                assert!(size == 0 || codec.decompress(&stored, size - 1).is_err());
            }
            assert!(compressor.compress(&[7; 1000]).unwrap().len() < 30);
        }
    }

    const IMPOSSIBLE: Result<Vec<u8>, &str> =
        Err("the uncompressed size is larger than its codec can produce from these bytes");

    #[test]
    fn an_impossible_size_is_refused_before_memory_is_allocated() {
        for codec in compressors().map(|each| each.codec) {
            assert_eq!(codec.decompress(&[], 1), IMPOSSIBLE);
            assert_eq!(codec.decompress(&[0xff; 10], (10 << 15) + 1), IMPOSSIBLE);
            assert!(codec.decompress(&[], 0).is_err());
        }
    }

    #[test]
    #[cfg(feature = "lz4")]
    fn the_limits_of_lz4_are_exact() {
        let codec = Codec::Lz4;
        assert_eq!(codec.decompress(&[0xff; 10], 2551), IMPOSSIBLE);
        assert_ne!(codec.decompress(&[0xff; 10], 2550), IMPOSSIBLE);
        assert_eq!(codec.decompress(&vec![0xff; 9 << 20], 0x7E00_0001), IMPOSSIBLE);
        // About the densest ten bytes possible: a run whose length continues over several bytes.
        let densest = [0x1f, b'x', 1, 0, 255, 255, 255, 255, 254, 0];
        let size = 1 + 19 + 4 * 255 + 254;
        assert_eq!(codec.decompress(&densest, size), Ok(vec![b'x'; size as usize]));
    }

    #[test]
    #[cfg(feature = "zstd")]
    fn the_densest_frame_of_zstandard_is_accepted() {
        // Magic number; a window of 128 KiB and no size; 999 blocks that repeat a byte 131,072
        // times, and a last one.
        let block = |last: u32| {
            let header = (131_072 << 3) | (1 << 1) | last;
            [&u32::to_le_bytes(header)[..3], b"x"].concat()
        };
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
        frame.extend(block(0).repeat(999));
        frame.extend(block(1));
        let size = 1000 * 131_072;
        assert!(Codec::Zstd.decompress(&frame, size).unwrap() == vec![b'x'; size as usize]);
        assert_eq!(Codec::Zstd.decompress(&frame, (4006 << 15) + 1), IMPOSSIBLE);
    }

    #[test]
    #[cfg(feature = "zstd")]
    fn frames_of_zstandard_that_this_crate_does_not_write() {
        let block = |kind: u32, size: u32, bytes: &[u8]| {
            let header = (size << 3) | (kind << 1) | 1;
            [&u32::to_le_bytes(header)[..3], bytes].concat()
        };
        // A frame with this descriptor and these optional fields, and one raw block.
        let frame = |descriptor: u8, fields: &[u8], content: &[u8]| {
            let size = u32::try_from(content.len()).unwrap();
            let magic = [0x28, 0xb5, 0x2f, 0xfd, descriptor];
            [&magic[..], fields, &block(0, size, content)].concat()
        };
        let small = |content: &[u8]| frame(0, &[0], content);
        let decompress = |stored: &[u8], size| Codec::Zstd.decompress(stored, size);
        assert_eq!(decompress(&small(b"abc"), 3).unwrap(), b"abc");
        // Several frames, some of which are empty or to be skipped.
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 4, 0, 0, 0], &b"skip"[..]].concat();
        let parts = [small(b"ab"), skipped.clone(), small(b""), small(b"c"), skipped.clone()];
        assert_eq!(decompress(&parts.concat(), 3).unwrap(), b"abc");
        assert!(decompress(&parts.concat(), 2).is_err() && decompress(&parts.concat(), 4).is_err());
        assert_eq!(decompress(&[skipped, small(b"")].concat(), 0).unwrap(), b"");
        // A skipped frame that is longer than the bytes.
        assert!(decompress(&[0x5a, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff], 0).is_err());
        assert!(decompress(&[&small(b"abc")[..], b"x"].concat(), 3).is_err());
        // The largest window there is takes no memory.
        assert_eq!(decompress(&frame(0, &[0xff], b"abc"), 3).unwrap_or(b"abc".into()), b"abc");
        // A content size that is not true, or enormous.
        let sized = |size: u64| frame(0xe0, &u64::to_le_bytes(size), b"abc");
        assert_eq!(decompress(&sized(3), 3).unwrap(), b"abc");
        assert!([0, 2, 4, 1 << 62].into_iter().all(|size| decompress(&sized(size), 3).is_err()));
        // A dictionary, a checksum that is wrong, a reserved bit, a reserved kind of block.
        assert!(decompress(&frame(1, &[0, 7], b"abc"), 3).is_err());
        assert!(decompress(&[&frame(4, &[0], b"abc")[..], &[0; 4]].concat(), 3).is_err());
        assert!(decompress(&frame(8, &[0], b"abc"), 3).is_err());
        let reserved = [&[0x28, 0xb5, 0x2f, 0xfd, 0, 0][..], &block(3, 3, b"abc")].concat();
        assert!(decompress(&reserved, 3).is_err());
        // Formats of old versions.
        assert!((0x22..=0x27).all(|old| decompress(&[old, 0xb5, 0x2f, 0xfd, 0, 0, 0], 3).is_err()));
        // The context of the thread is as good as new after each failure.
        assert_eq!(decompress(&small(b"abc"), 3).unwrap(), b"abc");
    }

    #[test]
    fn damaged_bytes_give_an_error_or_bytes_of_the_right_size() {
        let small = || values().into_iter().filter(|raw| raw.len() <= 1000);
        let all = compressors().flat_map(|each| small().map(move |raw| (each, raw)));
        for (compressor, raw) in all {
            let codec = compressor.codec;
            let size = u32::try_from(raw.len()).unwrap();
            let stored = compressor.compress(&raw).unwrap();
            for at in 0..stored.len() {
                for to in 0..=255 {
                    let mut damaged = stored.clone();
                    damaged[at] = to;
                    if let Ok(bytes) = codec.decompress(&damaged, size) {
                        assert_eq!(bytes.len(), raw.len());
                    }
                }
                assert!(codec.decompress(&stored[..at], size).is_err());
            }
        }
    }

    #[test]
    #[cfg(feature = "zstd")]
    fn a_thread_uses_one_context_for_all_levels() {
        let raw = b"many a little makes a mickle ".repeat(40);
        let sizes: Vec<_> = [19, 1, 19, -5, 0, 3]
            .map(|level| {
                let stored = Compressor { codec: Codec::Zstd, level }.compress(&raw).unwrap();
                let size = u32::try_from(raw.len()).unwrap();
                assert!(Codec::Zstd.decompress(&stored, size).unwrap() == raw);
                stored.len()
            })
            .into();
        assert_eq!(sizes[0], sizes[2]);
        assert_eq!(sizes[4], sizes[5]);
        assert!(sizes[0] < sizes[3], "{sizes:?}");
    }
}
