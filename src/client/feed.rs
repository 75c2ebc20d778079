//! The change feed: server-sent events, resumed where they ended.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _};

use ureq::BodyReader;

use super::call::{RemoteCall, refusal};
use super::json::ChangeField;
use super::{Client, ClientError, ClientResult};
use crate::dialect;
use crate::store::{Change, Operation, Position};
use crate::value::Value;

/// Changes of a store, in the order in which they were made, from [`Client::changes`].
///
/// It reads them over a connection of its own. If that breaks, it connects again and continues
/// behind the last change that it has returned, so no change is missed and none is returned twice.
///
/// ```no_run
/// use bitcask::Position;
/// use bitcask::client::Client;
/// # fn main() -> Result<(), bitcask::client::ClientError> {
/// let client = Client::from_env()?;
/// let mut changes = client.changes(Position::START).prefix("user/");
/// loop {
///     match changes.recv()? {
///         Some(change) => println!("{:?} {:?}", change.key, change.operation),
///         None => println!("nothing for a while, at {:?}", changes.resume_position()),
///     }
/// }
/// # }
/// ```
#[must_use = "nothing is read before the first call of `recv`"]
pub struct RemoteChanges {
    client: Client,
    prefix: Vec<u8>,
    durable: bool,
    /// `None` if it is to begin now, and does not know yet where that is.
    position: Option<Position>,
    stream: Option<EventStream>,
}

/// A connection on which events arrive.
struct EventStream {
    lines: BufReader<BodyReader<'static>>,
    request_id: String,
    /// Whether the first event has come, which says only where the stream begins.
    has_begun: bool,
}

/// An event.
#[derive(Debug, Default)]
struct RemoteEvent {
    name: String,
    id: String,
    data: String,
    /// Whether its data was left out because it is larger than an answer may be.
    is_too_large: bool,
}

impl Client {
    /// Returns the changes that were made after a position, and those that will be made.
    /// [`Position::START`] begins with the oldest change that the store still has.
    ///
    /// Positions are those of the store, so they are the same for a client and for a program that
    /// has the store open.
    pub fn changes(&self, since: Position) -> RemoteChanges {
        RemoteChanges::new(self, Some(since))
    }

    /// Returns the changes of keys with a prefix that will be made from now on. Waits until the
    /// server says where that is.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn watch_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<RemoteChanges, ClientError> {
        let mut changes = RemoteChanges::new(self, None).prefix(prefix);
        let mut stream = changes.connect()?;
        let begun = stream.next(self.transport.options.answer_size_limit);
        let event = begun.map_err(|reason| self.transport.broken(&stream.request_id, reason))?;
        changes.position = Some(changes.read_position(&stream, &event)?);
        stream.has_begun = true;
        changes.stream = Some(stream);
        Ok(changes)
    }
}

impl RemoteChanges {
    fn new(client: &Client, position: Option<Position>) -> Self {
        let (client, prefix) = (client.clone(), Vec::new());
        Self { client, prefix, durable: false, position, stream: None }
    }

    /// Narrows the feed to keys with a prefix.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.prefix = prefix.as_ref().to_vec();
        self.stream = None;
        self
    }

    /// Narrows the feed to changes that a crash of the server cannot undo any more. They come once
    /// they are durable.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self.stream = None;
        self
    }

    /// Returns where the feed continues: store it with what is derived from the changes.
    pub fn resume_position(&self) -> Position {
        self.position.unwrap_or(Position::START)
    }

    /// Waits for the next change. Returns `None` if there was none for about ten seconds; a later
    /// call goes on waiting.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. A later call connects again, and continues behind the last change. If
    /// [`is_history_gone`](ClientError::is_history_gone), read all keys and follow the changes from
    /// a newer position.
    pub fn recv(&mut self) -> Result<Option<Change>, ClientError> {
        let mut broken = 0;
        loop {
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => self.connect()?,
            };
            match stream.next(self.client.transport.options.answer_size_limit) {
                Ok(event) => {
                    let is_first = !std::mem::replace(&mut stream.has_begun, true);
                    let handled = self.handle(&stream, event);
                    // After an error of this event, the next one can be read all the same, except
                    // that the server ends the stream after an error of its own.
                    if !matches!(handled, Err(ClientError::Server { .. })) {
                        self.stream = Some(stream);
                    }
                    match handled? {
                        None if is_first => {}
                        handled => return Ok(handled),
                    }
                }
                Err(reason) => {
                    broken += 1;
                    if broken > self.client.transport.options.retries {
                        return Err(self.client.transport.broken(&stream.request_id, reason));
                    }
                }
            }
        }
    }

    fn connect(&self) -> ClientResult<EventStream> {
        let prefix = dialect::percent_encoded(&self.prefix);
        let path = format!("/v1/changes?prefix={prefix}&durable={}", self.durable);
        let mut call = RemoteCall::new("GET", path, &[]);
        if let Some(position) = self.position {
            let text =
                if position == Position::START { "start".into() } else { position.to_string() };
            call = call.header(dialect::LAST_EVENT_ID, text);
        }
        let request_id = self.client.transport.new_id();
        let reader = self.client.transport.stream(&call, &request_id)?;
        Ok(EventStream { lines: BufReader::new(reader), request_id, has_begun: false })
    }

    /// Returns the change of an event, or `None` for an event that only says where the feed is.
    fn handle(&mut self, stream: &EventStream, event: RemoteEvent) -> ClientResult<Option<Change>> {
        let request_id = stream.request_id.clone();
        if event.name == "error" {
            let (detail, code) = refusal(event.data.as_bytes()).unwrap_or((event.data, None));
            let is_gone = code.as_deref() == Some(dialect::HISTORY_GONE);
            let status = if is_gone { 410 } else { 500 };
            return Err(ClientError::Server { status, code, detail, request_id });
        }
        let position = self.read_position(stream, &event)?;
        self.position = Some(position);
        if event.is_too_large {
            let limit = self.client.transport.options.answer_size_limit;
            return Err(ClientError::AnswerTooLarge { limit, request_id });
        }
        let change = match event.name.as_str() {
            "put" | "delete" => change(&event, position),
            _ => return Ok(None),
        };
        match change.map_err(|reason| self.client.transport.invalid(&request_id, reason))? {
            FedChange::Whole(change) => Ok(Some(change)),
            FedChange::WithoutValue { key, size } => {
                Err(ClientError::ValueLeftOut { key, size, request_id })
            }
        }
    }

    fn read_position(&self, stream: &EventStream, event: &RemoteEvent) -> ClientResult<Position> {
        event.id.parse().map_err(|_| {
            let reason = format!("an event has the id `{}`, which is no position", event.id);
            self.client.transport.invalid(&stream.request_id, reason)
        })
    }
}

/// A change as an event has it.
enum FedChange {
    Whole(Change),
    WithoutValue { key: Value, size: u64 },
}

fn change(event: &RemoteEvent, position: Position) -> Result<FedChange, String> {
    let data: ChangeField = serde_json::from_str(&event.data).map_err(|error| error.to_string())?;
    let time =
        |text: &str| dialect::time_read(text).ok_or_else(|| format!("`{text}` is no time in UTC"));
    let value_size = data.pair.value_size;
    let (key, value) = data.pair.into_pair()?;
    let timestamp = time(&data.timestamp)?;
    let operation = match (event.name.as_str(), value, value_size) {
        ("delete", ..) => Operation::Delete,
        (_, Some(value), _) => {
            let expires_at = data.expires_at.as_deref().map(time).transpose()?;
            Operation::Put { value, expires_at }
        }
        (_, None, Some(size)) => return Ok(FedChange::WithoutValue { key, size }),
        (_, None, None) => return Err("a put has no value".into()),
    };
    let batch_continues = data.batch_continues;
    Ok(FedChange::Whole(Change { key, operation, timestamp, position, batch_continues }))
}

impl EventStream {
    /// Reads the next event, or returns why there is none. If its data has more than this many
    /// bytes, leaves them out.
    fn next(&mut self, size_max: u64) -> Result<RemoteEvent, String> {
        let mut event = RemoteEvent::default();
        loop {
            let Some(line) = self.line(size_max)? else {
                event.is_too_large = true;
                continue;
            };
            let line = String::from_utf8(line).map_err(|error| error.to_string())?;
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                if event.name.is_empty() && !event.is_too_large {
                    continue;
                }
                return Ok(event);
            }
            // A line that begins with a colon only keeps the connection open.
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "event" => value.clone_into(&mut event.name),
                "id" => value.clone_into(&mut event.id),
                "data" if (event.data.len() + value.len()) as u64 > size_max => {
                    event.is_too_large = true;
                }
                "data" => {
                    if !event.data.is_empty() {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                }
                _ => {}
            }
        }
    }

    /// Reads a line with its end. Skips it and returns `None` if it has more than this many bytes.
    fn line(&mut self, size_max: u64) -> Result<Option<Vec<u8>>, String> {
        let mut line = Vec::new();
        let read = self.lines.by_ref().take(size_max).read_until(b'\n', &mut line);
        read.map_err(|error| error.to_string())?;
        if line.last() == Some(&b'\n') {
            return Ok(Some(line));
        }
        let is_cut = line.len() as u64 == size_max;
        drop(line);
        if is_cut && self.lines.skip_until(b'\n').map_err(|error| error.to_string())? > 0 {
            return Ok(None);
        }
        Err("the server has ended the stream".into())
    }
}

impl fmt::Debug for RemoteChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteChanges")
            .field("client", &self.client)
            .field("prefix", &self.prefix)
            .field("durable", &self.durable)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
