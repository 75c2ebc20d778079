//! A store's events as lines of JSON, with the fields that log collectors expect.
//!
//! `cargo run --example observe --features tracing`

use std::error::Error;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use bitcask::{Bitcask, MergeOptions, Options};
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing_subscriber::fmt::{format::Writer, time::FormatTime, time::SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{filter::LevelFilter, util::SubscriberInitExt};

/// Prints a line for each event, and keeps it for the checks below.
struct JsonLines {
    service: &'static str,
    lines: Arc<Mutex<Vec<Value>>>,
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), json!(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), json!(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), json!(value));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), json!(value));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), json!(format!("{value:?}")));
    }
}

impl<S: tracing::Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut timestamp = String::new();
        let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        fields.0.insert("level".into(), json!(event.metadata().level().as_str()));
        fields.0.insert("timestamp".into(), json!(timestamp));
        fields.0.insert("service".into(), json!(self.service));
        let line = Value::Object(fields.0);
        println!("{line}");
        self.lines.lock().map(|mut lines| lines.push(line)).unwrap_or_default();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let lines = Arc::default();
    let layer = JsonLines { service: "shop", lines: Arc::clone(&lines) };
    tracing_subscriber::registry().with(layer.with_filter(LevelFilter::INFO)).init();

    let dir = tempfile::tempdir()?;
    let db = Bitcask::open(dir.path(), Options::default())?;
    db.put("key", "old")?;
    db.put("key", "new")?;
    db.merge_opt(MergeOptions::new().force(true))?;
    db.close()?;

    let lines = lines.lock().map_err(|_| "a thread has panicked")?;
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str()).collect();
    assert_eq!(events, [Some("opened"), Some("merged"), Some("closed")]);
    for line in lines.iter() {
        assert_eq!((&line["level"], &line["service"]), (&json!("INFO"), &json!("shop")));
        assert!(line["duration_ms"].as_f64().is_some_and(|millis| millis > 0.0));
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
    }
    Ok(())
}
