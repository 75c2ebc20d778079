//! The slots of Redis Cluster: which keys belong together.
//!
//! - A key belongs to the slot that the CRC16 of it gives, or of its hash tag. Clients compute the
//!   same, and so know which node to ask.
//! - See the
//!   [specification](https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).

/// Number of slots.
pub(crate) const SLOT_COUNT: u16 = 16_384;

/// Returns the slot of a key.
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOT_COUNT
}

/// Returns the part of a key between the first `{` and the next `}`, or all of it if there is no
/// such part. Keys with the same tag are in the same slot.
fn hash_tag(key: &[u8]) -> &[u8] {
    let after = |byte: u8, text: &[u8]| text.iter().position(|it| *it == byte);
    let Some(tagged) = after(b'{', key).and_then(|open| key.get(open + 1..)) else { return key };
    match after(b'}', tagged).and_then(|close| tagged.get(..close)) {
        Some([]) | None => key,
        Some(tag) => tag,
    }
}

/// CRC-16/XMODEM: polynomial 0x1021, initial value 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0_u16, |crc, byte| {
        let mut crc = crc ^ (u16::from(*byte) << 8);
        for _ in 0..8 {
            let shifted = crc << 1;
            crc = if crc & 0x8000 == 0 { shifted } else { shifted ^ 0x1021 };
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // The check value of the specification, and what CLUSTER KEYSLOT of Redis returns.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, slot) in [("foo", 12_182), ("bar", 5_061), ("", 0), ("somekey", 11_058)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn keys_with_the_same_tag_belong_together() {
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(slot_of(b"foo{hash_tag}"), 2515);
        for (key, tag) in
            [("foo{}{bar}", "foo{}{bar}"), ("foo{{bar}}zap", "{bar"), ("foo{bar}{zap}", "bar")]
        {
            assert_eq!(hash_tag(key.as_bytes()), tag.as_bytes());
        }
    }
}
