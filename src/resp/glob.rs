//! Patterns of keys and channels: `*`, `?`, `[abc]`, `[^a-z]`, and a backslash before a character
//! that stands for itself.
//!
//! A pattern with many stars takes time in proportion to its size times that of the text, and no
//! stack.

/// Returns whether a text matches a pattern.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // What follows the last star, and the text that it was last tried on.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = pattern {
            if after.is_empty() {
                return true;
            }
            (pattern, retry) = (after, Some((after, text)));
            continue;
        }
        let step = match (pattern, text) {
            ([], []) => return true,
            ([], _) => None,
            (_, []) => return false,
            (_, [byte, rest @ ..]) => {
                let (is_match, after) = one(pattern, *byte);
                is_match.then_some((after, rest))
            }
        };
        match (step, retry) {
            (Some(next), _) => (pattern, text) = next,
            (None, Some((after, [_, rest @ ..]))) => {
                (pattern, text, retry) = (after, rest, Some((after, rest)));
            }
            (None, _) => return false,
        }
    }
}

/// Compares one byte with the first element of a pattern. Returns the pattern after the element.
fn one(pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    match pattern {
        [b'?', after @ ..] => (true, after),
        [b'[', b'^', after @ ..] => {
            let (is_in, after) = class(after, byte);
            (!is_in, after)
        }
        [b'[', after @ ..] => class(after, byte),
        [b'\\', literal, after @ ..] | [literal, after @ ..] => (*literal == byte, after),
        [] => (false, &[]),
    }
}

/// Returns whether a byte is in a class, and what follows the class.
fn class(mut pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    let mut is_in = false;
    loop {
        pattern = match pattern {
            [b'\\', literal, after @ ..] => {
                is_in |= *literal == byte;
                after
            }
            [b']', after @ ..] => return (is_in, after),
            [first, b'-', last, after @ ..] => {
                let (low, high) = (first.min(last), first.max(last));
                is_in |= (*low..=*high).contains(&byte);
                after
            }
            [literal, after @ ..] => {
                is_in |= *literal == byte;
                after
            }
            [] => return (is_in, &[]),
        };
    }
}

/// Returns the text that every match begins with.
pub(super) fn literal_prefix(pattern: &[u8]) -> &[u8] {
    let is_special = |byte: &u8| b"*?[\\".contains(byte);
    let end = pattern.iter().position(is_special).unwrap_or(pattern.len());
    pattern.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let cases = [
            ("*", "", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("[", "[", false),
            ("[\\]]", "]", true),
            ("[\\-a]", "_", false),
            ("foo*", "foo", true),
            ("", "a", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_forever() {
        let (pattern, text) = ([b"a*".repeat(50), b"b".to_vec()].concat(), b"a".repeat(10_000));
        assert!(!matches(&pattern, &text));
    }

    #[test]
    fn the_prefix_ends_before_the_first_special_character() {
        assert_eq!(literal_prefix(b"user:*"), b"user:");
        assert_eq!(literal_prefix(b"user"), b"user");
        assert_eq!(literal_prefix(b"*"), b"");
    }
}
