//! Tests of what is understood, and of what is refused.

use super::*;

/// Decodes everything, given in pieces of a size.
fn decode_all(bytes: &[u8], piece: usize) -> (Vec<Vec<Bytes>>, Option<String>) {
    let (mut decoder, mut commands) = (Decoder::default(), Vec::new());
    let limits = FrameLimits::new(512 << 20);
    for piece in bytes.chunks(piece) {
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.next(limits) {
                Ok(Some(command)) => commands.push(command),
                Ok(None) => break,
                Err(error) => return (commands, Some(error.to_string())),
            }
        }
    }
    (commands, None)
}

fn refusal(bytes: &[u8]) -> String {
    let whole = decode_all(bytes, bytes.len()).1.expect("it is wrong");
    assert_eq!(decode_all(bytes, 1).1.expect("it is wrong"), whole);
    whole
}

#[test]
fn commands_arrive_in_any_pieces() {
    let bytes =
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nping  \"a b\"\r\n*0\r\n*-1\r\n\r\n*1\r\n$4\r\nPING\r\n";
    let expected: [&[&str]; 3] = [&["GET", "k"], &["ping", "a b"], &["PING"]];
    for piece in 1..bytes.len() {
        let (commands, error) = decode_all(bytes, piece);
        assert_eq!((commands.len(), error), (3, None));
        for (command, expected) in commands.iter().zip(expected) {
            assert_eq!(command, expected);
        }
    }
}

#[test]
fn what_is_wrong_is_named_as_redis_names_it() {
    let text = |text: &str| format!("Protocol error: {text}");
    assert_eq!(refusal(b"*abc\r\n"), text("invalid multibulk length"));
    assert_eq!(refusal(b"*20000000\r\n"), text("invalid multibulk length"));
    assert_eq!(refusal(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n"), text("expected '$', got 'f'"));
    assert_eq!(refusal(b"*1\r\n$blabla\r\n"), text("invalid bulk length"));
    assert_eq!(refusal(b"*1\r\n$-10\r\n"), text("invalid bulk length"));
    assert_eq!(refusal(b"*1\r\n$2000000000\r\n"), text("invalid bulk length"));
    assert_eq!(refusal(b"set \"a\r\n"), text("unbalanced quotes in request"));
    assert_eq!(refusal(b"set \"a\"b\r\n"), text("unbalanced quotes in request"));
    let long = vec![b'1'; LINE_SIZE_MAX + 10];
    assert_eq!(refusal(&long), text("too big inline request"));
    assert_eq!(refusal(&[b"*", &long[..]].concat()), text("too big mbulk count string"));
    assert_eq!(refusal(&[b"*1\r\n$", &long[..]].concat()), text("too big bulk count string"));
}

#[test]
fn a_stranger_may_send_little() {
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(b"*11\r\n");
    let error = decoder.next(FrameLimits::stranger()).unwrap_err();
    assert_eq!(error.to_string(), "Protocol error: unauthenticated multibulk length");
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(b"*1\r\n$16385\r\n");
    let error = decoder.next(FrameLimits::stranger()).unwrap_err();
    assert_eq!(error.to_string(), "Protocol error: unauthenticated bulk length");
}

#[test]
fn an_announced_argument_takes_no_memory() {
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(b"*1\r\n$536870912\r\nabc");
    assert_eq!(decoder.next(FrameLimits::new(512 << 20)), Ok(None));
    assert!(decoder.buffer().capacity() < 4 << 10);
}

#[test]
fn only_one_form_of_an_integer_is_valid() {
    for (text, number) in [("0", 0), ("-1", -1), ("10", 10)] {
        assert_eq!(parse_integer(text.as_bytes()), Some(number));
    }
    for number in [i64::MIN, i64::MAX] {
        assert_eq!(parse_integer(number.to_string().as_bytes()), Some(number));
    }
    for text in ["", "-", "-0", "+1", "01", " 1", "1 ", "1.0", "9223372036854775808", "a"] {
        assert_eq!(parse_integer(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn inline_arguments_have_escapes() {
    let line = br#"set "\x41\n\"" 'it\'s' plain"#;
    let expected: [&[u8]; 4] = [b"set", b"A\n\"", b"it's", b"plain"];
    assert_eq!(inline::split(line).unwrap(), expected);
    assert!(inline::split(b"  ").unwrap().is_empty());
}
