//! What the store reports while a command runs: one line for each event, on standard error.

use std::fmt::Debug;
use std::io::{Stderr, Write};
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::exit::Exit;
use crate::log_queue::{LogQueue, QueuedLine};

/// The name of this program in its log lines.
const SERVICE: &str = "bitcask";

/// Which log lines are printed, and how.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct LogOptions {
    /// From which level on events are printed to standard error [default: off, and info for a
    /// server].
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "BITCASK_LOG_LEVEL",
        hide_env_values = true,
        ignore_case = true
    )]
    log_level: Option<LogLevel>,

    /// Form of these lines [default: text, and json for a server].
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        env = "BITCASK_LOG_FORMAT",
        hide_env_values = true,
        ignore_case = true
    )]
    log_format: Option<LogFormat>,
}

/// From which level on events are printed.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum LogLevel {
    /// Nothing.
    #[default]
    Off,
    /// What has failed.
    #[value(alias = "critical")]
    Error,
    /// Also what deserves attention.
    #[value(alias = "warning")]
    Warn,
    /// Also each open, recovery, merge and close, and each command.
    Info,
    /// Also each rotation, seal and sync.
    Debug,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl LogLevel {
    fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
        }
    }
}

impl LogOptions {
    /// Prints events from now on. `usual` is what the command does unless the user has chosen.
    pub(crate) fn start(self, usual: UsualLines) {
        let filter = self.log_level.unwrap_or(usual.level).filter();
        if filter == LevelFilter::OFF {
            return;
        }
        let format = self.log_format.unwrap_or(usual.format);
        let lost = match format {
            LogFormat::Text => lost_as_text,
            LogFormat::Json => lost_as_json,
        };
        // Without a thread, lines are written where they are made.
        let queue = if usual.is_server { LogQueue::start(lost).ok() } else { None };
        let sink = queue.map_or(LogSink::Direct, LogSink::Queue);
        let registry = tracing_subscriber::registry();
        // Both fail only if the process had a subscriber already.
        let _ = match format {
            LogFormat::Text => {
                let lines = tracing_subscriber::fmt::layer().with_target(false).with_ansi(false);
                registry.with(lines.with_writer(sink).with_filter(filter)).try_init()
            }
            LogFormat::Json => registry.with(JsonLines(sink).with_filter(filter)).try_init(),
        };
    }
}

/// Which log lines a command prints unless the user has chosen others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UsualLines {
    level: LogLevel,
    format: LogFormat,
    /// Whether requests must not wait for whoever reads the lines. Everything else had better wait
    /// than lose one.
    is_server: bool,
}

impl UsualLines {
    /// Returns those of a command that ends by itself.
    pub(crate) fn of_command() -> Self {
        Self { level: LogLevel::Off, format: LogFormat::Text, is_server: false }
    }

    /// Returns those of a server.
    pub(crate) fn of_server(level: LogLevel) -> Self {
        Self { level, format: LogFormat::Json, is_server: true }
    }
}

/// Where lines go.
#[derive(Debug)]
enum LogSink {
    /// To standard error at once.
    Direct,
    Queue(Arc<LogQueue>),
}

/// A writer of one line.
#[derive(Debug)]
enum LineWriter {
    Direct(Stderr),
    Queue(QueuedLine),
}

impl<'a> MakeWriter<'a> for LogSink {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        match self {
            Self::Direct => LineWriter::Direct(std::io::stderr()),
            Self::Queue(queue) => LineWriter::Queue(QueuedLine::new(queue)),
        }
    }
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Direct(out) => out.write(bytes),
            Self::Queue(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Direct(out) => out.flush(),
            Self::Queue(out) => out.flush(),
        }
    }
}

/// Returns the line about lines that were lost.
fn lost_as_text(lines: u64) -> Vec<u8> {
    format!("{}  WARN event=\"log_lines_lost\" lines={lines}\n", now()).into_bytes()
}

fn lost_as_json(lines: u64) -> Vec<u8> {
    let mut line = Map::new();
    line.insert("event".into(), "log_lines_lost".into());
    line.insert("lines".into(), lines.into());
    json_line(line, Level::WARN).into_bytes()
}

/// Returns a line as JSON.
fn json_line(mut fields: Map<String, Value>, level: Level) -> String {
    fields.insert("level".into(), level.as_str().into());
    fields.insert("timestamp".into(), now().into());
    fields.insert("service".into(), SERVICE.into());
    format!("{}\n", Value::Object(fields))
}

fn now() -> String {
    let mut timestamp = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    timestamp
}

/// Reports that a command has ended.
pub(crate) fn command_ended(command: &str, exit: Exit, started: Instant) {
    let duration_ms = started.elapsed().as_secs_f64() * 1000.0;
    tracing::info!(event = "command_ended", command, exit = exit.code(), duration_ms);
}

/// Prints events as JSON, with their fields at the top level.
struct JsonLines(LogSink);

/// The fields of an event.
struct EventFields(Map<String, Value>);

impl EventFields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for EventFields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.insert(field, format!("{value:?}"));
    }
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = EventFields(Map::new());
        event.record(&mut fields);
        // One call, so that the lines of two threads do not mix.
        let line = json_line(fields.0, *event.metadata().level());
        let _ = self.0.make_writer().write_all(line.as_bytes());
    }
}
