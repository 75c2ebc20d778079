//! A store for sensors: every reading by time, and the latest one of each sensor under its own key.
//!
//! `cargo run --example sensor_log`

use std::error::Error;

use bitcask::{Batch, Bitcask, Options};
use serde::{Deserialize, Serialize};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SENSORS: [&str; 3] = ["attic", "cellar", "kitchen"];

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Reading {
    /// Seconds since the epoch.
    time: u64,
    celsius: f64,
    humidity: u8,
}

/// Stores a reading under its time and as the sensor's latest reading, in one batch.
fn record(db: &Bitcask, sensor: &str, reading: &Reading) -> Outcome<()> {
    let json = serde_json::to_vec(reading)?;
    let key = format!("reading/{sensor}/{:012}", reading.time);
    Ok(db.write(Batch::new().put(key, &json).put(format!("latest/{sensor}"), &json))?)
}

/// Looks up a reading, and deserializes it without copying its bytes.
fn reading(db: &Bitcask, key: &str) -> Outcome<Option<Reading>> {
    Ok(db.get_with(key, |json| serde_json::from_slice(json))?.transpose()?)
}

fn main() -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let db = Bitcask::open(dir.path(), Options::default())?;
    for minute in 0..1_000_u32 {
        let (time, drift) = (1_700_000_000 + u64::from(minute) * 60, f64::from(minute) / 100.0);
        record(&db, "attic", &Reading { time, celsius: 20.0 + drift, humidity: 40 })?;
        record(&db, "cellar", &Reading { time, celsius: 12.5, humidity: 70 })?;
        if minute % 2 == 0 {
            record(&db, "kitchen", &Reading { time, celsius: 21.0 - drift, humidity: 55 })?;
        }
    }
    db.close()?;

    let db = Bitcask::open(dir.path(), Options::default())?;
    // `keys_unordered` iterates in no particular order. One pass over all keys serves every prefix.
    let keys = db.keys_unordered().collect::<bitcask::Result<Vec<_>>>()?;
    for (sensor, expected) in SENSORS.into_iter().zip([1_000, 1_000, 500]) {
        let latest = reading(&db, &format!("latest/{sensor}"))?.ok_or("no reading")?;
        let prefix = format!("reading/{sensor}/");
        let count = keys.iter().filter(|key| key.starts_with(prefix.as_bytes())).count();
        println!("{sensor:8} {count:5} readings, latest {latest:?}");
        assert_eq!(count, expected);
        assert_eq!(reading(&db, &format!("{prefix}{:012}", latest.time))?, Some(latest));
    }
    Ok(db.close()?)
}
