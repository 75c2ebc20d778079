//! The protocol of Redis.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Failure;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Text(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Self>),
}

/// Appends a command.
pub(crate) fn write_command(args: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// Returns the first reply and its length, or `None` if it has not arrived completely.
fn parse(input: &[u8]) -> Result<Option<(Reply, usize)>, Failure> {
    let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let text = str::from_utf8(&input[1..end])?;
    let mut at = end + 2;
    let reply = match input[0] {
        b'+' => Reply::Text(text.to_owned()),
        b'-' => Reply::Error(text.to_owned()),
        b':' => Reply::Integer(text.parse()?),
        b'$' if text == "-1" => Reply::Bulk(None),
        b'$' => {
            let length: usize = text.parse()?;
            let Some(bytes) = input.get(at..at + length + 2) else { return Ok(None) };
            at += length + 2;
            Reply::Bulk(Some(bytes[..length].to_vec()))
        }
        b'*' => {
            let mut items = Vec::new();
            for _ in 0..text.parse::<usize>()? {
                let Some((item, length)) = parse(&input[at..])? else { return Ok(None) };
                items.push(item);
                at += length;
            }
            Reply::Array(items)
        }
        other => return Err(format!("no reply begins with {other}").into()),
    };
    Ok(Some((reply, at)))
}

/// A connection to one node.
pub(crate) struct RespConnection {
    stream: TcpStream,
    input: Vec<u8>,
}

impl RespConnection {
    pub(crate) async fn open(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::new() })
    }

    pub(crate) async fn send(&mut self, commands: &[u8]) -> Result<(), Failure> {
        Ok(self.stream.write_all(commands).await?)
    }

    pub(crate) async fn reply(&mut self) -> Result<Reply, Failure> {
        loop {
            if let Some((reply, length)) = parse(&self.input)? {
                self.input.drain(..length);
                return Ok(reply);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err("the node has closed the connection".into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_parsed_once_they_are_complete() {
        let cases: [(&[u8], Reply); 6] = [
            (b"+OK\r\n", Reply::Text("OK".to_owned())),
            (b"-ERR no\r\n", Reply::Error("ERR no".to_owned())),
            (b":-7\r\n", Reply::Integer(-7)),
            (b"$-1\r\n", Reply::Bulk(None)),
            (b"$4\r\na\r\nb\r\n", Reply::Bulk(Some(b"a\r\nb".to_vec()))),
            (
                b"*2\r\n*1\r\n:1\r\n$0\r\n\r\n",
                Reply::Array(vec![
                    Reply::Array(vec![Reply::Integer(1)]),
                    Reply::Bulk(Some(Vec::new())),
                ]),
            ),
        ];
        for (text, expected) in cases {
            for length in 0..text.len() {
                assert_eq!(parse(&text[..length]).unwrap(), None);
            }
            let followed = [text, b"+next\r\n"].concat();
            assert_eq!(parse(&followed).unwrap(), Some((expected, text.len())));
        }
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut out = Vec::new();
        write_command(&[b"GET", b"a\r\nb"], &mut out);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n");
    }
}
