//! Typed keys and values: two collections in one store, ranges in the order of numbers, and a
//! transaction over both.
//!
//! `cargo run --example typed --features serde`

use std::error::Error;

use bitcask::typed::{Json, Typed};
use bitcask::{Batch, Bitcask, Options};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Reading {
    celsius: f32,
    humidity: u8,
}

/// Readings by sensor and time, in seconds since the epoch.
const READINGS: Typed<(String, i64), Reading> = Typed::new("reading/");
/// The time of each sensor's latest reading, as JSON for other programs.
const LATEST: Typed<String, i64, Json> = Typed::json("latest/");

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let db = Bitcask::open(dir.path(), Options::default())?;

    // A batch changes both collections, or neither.
    let mut batch = Batch::new();
    for (sensor, drift) in [("attic", 0.5), ("cellar", -0.25)] {
        for minute in -2..10_i8 {
            let time = i64::from(minute) * 60;
            let reading = Reading { celsius: 20.0 + drift * f32::from(minute), humidity: 50 };
            READINGS.put_in(&mut batch, &(sensor, time), &reading)?;
            LATEST.put_in(&mut batch, sensor, &time)?;
        }
    }
    db.write(&batch)?;

    // Numbers are in the order of numbers: -120 comes before 0, and 60 before 540.
    let times = READINGS.range(&db, ("attic", -120)..("attic", 120)).map(|pair| Ok(pair?.0.1));
    let times = times.collect::<bitcask::Result<Vec<_>>>()?;
    println!("attic:  {times:?}");
    assert_eq!(times, [-120, -60, 0, 60]);

    let ((sensor, time), last) = READINGS.last(&db)?.ok_or("no reading")?;
    println!("{sensor}: {last:?} at {time}");
    assert_eq!((sensor.as_str(), time, last.celsius), ("cellar", 540, 17.75));
    assert_eq!(db.get("latest/cellar")?.ok_or("no time")?, "540");

    // A transaction reads and writes any collections.
    let removed = db.transaction(|tx| {
        let Some(time) = LATEST.get(tx, "attic")? else { return Ok(false) };
        READINGS.delete_in(tx, &("attic", time));
        LATEST.put_in(tx, "attic", &(time - 60))?;
        Ok(true)
    })?;
    assert!(removed && READINGS.prefix(&db, &("attic",)).count() == 11);
    Ok(db.close()?)
}
