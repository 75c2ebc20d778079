//! Compression of values: the codecs and their numbers.
//!
//! - Two bits of an entry's flags name the codec; zero means that the value is stored uncompressed.
//! - `Codec` lists only the codecs of this build. Entries that name another codec are refused
//!   before they reach this module.
//! - Stored bytes are not trusted. Decompression returns exactly the requested size or an error,
//!   and allocates no more than the stored bytes can expand to. It never panics.

/// A compression algorithm for values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    #[cfg(feature = "lz4")]
    Lz4,
}

impl Codec {
    /// Returns the codec with a non-zero number, or `None` if this build does not include it. The
    /// numbers are stored on disk: never renumber.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        match number {
            #[cfg(feature = "lz4")]
            1 => Some(Self::Lz4),
            _ => None,
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => 1,
        }
    }
}

#[cfg_attr(
    not(feature = "lz4"),
    expect(unused_variables, reason = "there is no codec to use them")
)]
impl Codec {
    /// Compresses a value. Returns `None` if the codec can't compress it or memory is short. The
    /// result may be larger than the input.
    pub(crate) fn compress(self, raw: &[u8]) -> Option<Vec<u8>> {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => lz4::compress(raw),
        }
    }

    /// Decompresses a value of a known size, or returns why the stored bytes are invalid.
    pub(crate) fn decompress(self, stored: &[u8], raw_size: u32) -> Result<Vec<u8>, &'static str> {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => lz4::decompress(stored, raw_size),
        }
    }
}

/// LZ4's block format, without a frame and without a size prefix.
#[cfg(feature = "lz4")]
mod lz4 {
    use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

    /// Largest input, in bytes, that other implementations of LZ4 accept.
    const RAW_SIZE_LIMIT: u32 = 0x7E00_0000;
    /// Largest number of bytes that one stored byte can expand to: a length continues with one byte
    /// for each 255.
    const RATIO_MAX: u64 = 255;

    pub(super) fn compress(raw: &[u8]) -> Option<Vec<u8>> {
        if raw.len() > RAW_SIZE_LIMIT as usize {
            return None;
        }
        let mut stored = zeroed(get_maximum_output_size(raw.len()))?;
        let size = compress_into(raw, &mut stored).ok()?;
        stored.truncate(size);
        // A batch may hold many of these.
        stored.shrink_to_fit();
        Some(stored)
    }

    pub(super) fn decompress(stored: &[u8], raw_size: u32) -> Result<Vec<u8>, &'static str> {
        if raw_size > RAW_SIZE_LIMIT || u64::from(raw_size) > RATIO_MAX * stored.len() as u64 {
            return Err("the uncompressed size is larger than LZ4 can produce from these bytes");
        }
        let size = raw_size as usize;
        let mut raw = zeroed(size).ok_or("the decompressed value does not fit in memory")?;
        match decompress_into(stored, &mut raw) {
            Ok(written) if written == size => Ok(raw),
            Ok(_) => Err("the compressed value is shorter than the entry says"),
            Err(_) => Err("the compressed value can't be decompressed"),
        }
    }

    fn zeroed(size: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).ok()?;
        bytes.resize(size, 0);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the codecs of this build.
    fn codecs() -> impl Iterator<Item = Codec> {
        (1..4).filter_map(Codec::from_number)
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
        for codec in codecs() {
            for raw in values() {
                let stored = codec.compress(&raw).unwrap();
                let size = u32::try_from(raw.len()).unwrap();
                assert!(codec.decompress(&stored, size).unwrap() == raw, "{size}");
                assert!(codec.decompress(&stored, size + 1).is_err());
                assert!(size == 0 || codec.decompress(&stored, size - 1).is_err());
            }
            assert!(codec.compress(&[7; 1000]).unwrap().len() < 30);
        }
    }

    #[test]
    fn an_impossible_size_is_refused_before_memory_is_allocated() {
        for codec in codecs() {
            let refusal =
                Err("the uncompressed size is larger than LZ4 can produce from these bytes");
            assert_eq!(codec.decompress(&[0xff; 10], 2551), refusal);
            assert_eq!(codec.decompress(&[], 1), refusal);
            assert_eq!(codec.decompress(&vec![0xff; 9 << 20], 0x7E00_0001), refusal);
            // About the densest ten bytes possible: a run whose length continues over several
            // bytes.
            let densest = [0x1f, b'x', 1, 0, 255, 255, 255, 255, 254, 0];
            let size = 1 + 19 + 4 * 255 + 254;
            assert_eq!(codec.decompress(&densest, size), Ok(vec![b'x'; size as usize]));
        }
    }

    #[test]
    fn damaged_bytes_give_an_error_or_bytes_of_the_right_size() {
        let small = || values().into_iter().filter(|raw| raw.len() <= 1000);
        for (codec, raw) in codecs().flat_map(|codec| small().map(move |raw| (codec, raw))) {
            let size = u32::try_from(raw.len()).unwrap();
            let stored = codec.compress(&raw).unwrap();
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
}
