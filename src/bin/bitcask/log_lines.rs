//! What the store reports while a command runs: one line for each event, on standard error.

use std::fmt::Debug;
use std::io::Write as _;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::exit::Exit;

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
    pub(crate) fn start(self, usual: (LogLevel, LogFormat)) {
        let (level, format) = usual;
        let filter = self.log_level.unwrap_or(level).filter();
        let registry = tracing_subscriber::registry();
        // Both fail only if the process had a subscriber already.
        let _ = match self.log_format.unwrap_or(format) {
            _ if filter == LevelFilter::OFF => Ok(()),
            LogFormat::Text => {
                let lines = tracing_subscriber::fmt::layer().with_target(false).with_ansi(false);
                registry.with(lines.with_writer(std::io::stderr).with_filter(filter)).try_init()
            }
            LogFormat::Json => registry.with(JsonLines.with_filter(filter)).try_init(),
        };
    }
}

/// Reports that a command has ended.
pub(crate) fn command_ended(command: &str, exit: Exit, started: Instant) {
    let duration_ms = started.elapsed().as_secs_f64() * 1000.0;
    tracing::info!(event = "command_ended", command, exit = exit.code(), duration_ms);
}

/// Prints events as JSON, with their fields at the top level.
struct JsonLines;

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
        let mut timestamp = String::new();
        let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
        let mut fields = EventFields(Map::new());
        event.record(&mut fields);
        let mut line = fields.0;
        line.insert("level".into(), event.metadata().level().as_str().into());
        line.insert("timestamp".into(), timestamp.into());
        line.insert("service".into(), SERVICE.into());
        // One call, so that the lines of two threads do not mix.
        let line = format!("{}\n", Value::Object(line));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
