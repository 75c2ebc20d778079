//! What happens to keys, and which of it is published.

use bytes::Bytes;

/// Kinds of events, by which `notify-keyspace-events` chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventClass {
    Generic,
    String,
    Hash,
    Expired,
    New,
}

impl EventClass {
    fn bit(self) -> u32 {
        let letter = match self {
            Self::Generic => b'g',
            Self::String => b'$',
            Self::Hash => b'h',
            Self::Expired => b'x',
            Self::New => b'n',
        };
        bit_of(letter)
    }
}

/// Something that has happened to a key.
#[derive(Debug, Clone)]
pub(super) struct KeyEvent {
    pub(super) class: EventClass,
    pub(super) name: &'static str,
    pub(super) key: Bytes,
}

/// All letters of `notify-keyspace-events`, in the order in which they are printed. The place of a
/// letter is its bit.
const LETTERS: &[u8] = b"g$lshzxetdKEmn";
/// The letters that `A` stands for.
const ALL: &[u8] = b"g$lshzxetd";

fn bit_of(letter: u8) -> u32 {
    LETTERS.iter().position(|known| *known == letter).map_or(0, |place| 1 << place)
}

fn bits_of(letters: &[u8]) -> u32 {
    letters.iter().fold(0, |bits, letter| bits | bit_of(*letter))
}

/// Which events are published, and on which channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct EventFilter(u32);

impl EventFilter {
    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// Parses the value of `notify-keyspace-events`.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut bits = 0;
        for letter in text {
            bits |= match letter {
                b'A' => bits_of(ALL),
                letter => Some(bit_of(*letter)).filter(|bit| *bit != 0)?,
            };
        }
        Some(Self(bits))
    }

    pub(super) fn shown(self) -> String {
        let all = bits_of(ALL);
        let mut text = String::new();
        if self.0 & all == all {
            text.push('A');
        }
        for letter in LETTERS {
            let bit = bit_of(*letter);
            let is_in_all = bit & all != 0 && self.0 & all == all;
            if self.0 & bit != 0 && !is_in_all {
                text.push(char::from(*letter));
            }
        }
        text
    }

    /// Returns whether anything is published at all.
    pub(super) fn is_on(self) -> bool {
        self.0 & bits_of(b"KE") != 0 && self.0 & !bits_of(b"KE") != 0
    }

    pub(super) fn has(self, class: EventClass) -> bool {
        self.0 & class.bit() != 0
    }

    pub(super) fn by_key(self) -> bool {
        self.0 & bit_of(b'K') != 0
    }

    pub(super) fn by_event(self) -> bool {
        self.0 & bit_of(b'E') != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_shown_as_redis_shows_it() {
        for (text, shown) in [("KEA", "AKE"), ("", ""), ("Kg$", "g$K"), ("AKEmn", "AKEmn")] {
            assert_eq!(EventFilter::parse(text.as_bytes()).unwrap().shown(), shown);
        }
        assert_eq!(EventFilter::parse(b"Kq"), None);
        let filter = EventFilter::parse(b"Kh").unwrap();
        assert!(filter.is_on() && filter.has(EventClass::Hash) && !filter.has(EventClass::String));
        assert!(!EventFilter::parse(b"KE").unwrap().is_on());
    }
}
