//! Another process follows the writer of a store, ends, and continues where it stopped.
//!
//! `cargo run --example follower_process` is the writer, and starts itself with a directory and a
//! position as the follower.

use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use bitcask::{Bitcask, Operation, Options, Position, ReadOnly};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Prints each change until the key `stop` is put, and then the position that it has reached.
fn follow(dir: &str, since: Position) -> Outcome<()> {
    let store = ReadOnly::open(dir, Options::default())?;
    // If merges have removed changes after this position, this fails, and `needs_resync` is true
    // for the error. The example `changes` starts again from a snapshot then.
    let mut changes = store.changes(since)?;
    loop {
        // A change in another process wakes nobody here, so the follower looks for it.
        if !store.refresh()? {
            thread::sleep(Duration::from_millis(10));
        }
        while let Some(change) = changes.try_recv()? {
            let key = String::from_utf8_lossy(&change.key).into_owned();
            match change.operation {
                Operation::Put { .. } if key == "stop" => {
                    println!("{}", change.position);
                    return Ok(());
                }
                Operation::Put { value, .. } => {
                    println!("{key} = {}", String::from_utf8_lossy(&value));
                }
                _ => println!("{key} is gone"),
            }
        }
    }
}

/// Starts a follower in another process.
fn start(dir: &str, since: &str) -> std::io::Result<Child> {
    Command::new(env::current_exe()?).args([dir, since]).stdout(Stdio::piped()).spawn()
}

/// Returns what a follower has printed once it has ended.
fn printed(follower: Child) -> Outcome<Vec<String>> {
    let output = follower.wait_with_output()?;
    assert!(output.status.success());
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

fn main() -> Outcome<()> {
    if let [_, dir, since] = &env::args().collect::<Vec<_>>()[..] {
        return follow(dir, since.parse()?);
    }
    let dir = tempfile::tempdir()?;
    let path = dir.path().to_str().ok_or("a path in UTF-8")?;
    let db = Bitcask::open(path, Options::default())?;
    db.put("apples", "3")?;
    let follower = start(path, &Position::START.to_string())?;
    db.put("pears", "5")?; // While the follower starts, or before, or after.
    db.delete("apples")?;
    db.put("stop", "")?;
    let mut lines = printed(follower)?;
    let position = lines.pop().ok_or("the follower has printed its position")?;
    println!("{lines:?}, up to {position}");
    assert_eq!(lines, ["apples = 3", "pears = 5", "apples is gone"]);

    // The writer continues without a follower. The next one gets only what is new.
    db.put("plums", "8")?;
    db.put("stop", "")?;
    let mut lines = printed(start(path, &position)?)?;
    lines.pop();
    println!("{lines:?}");
    assert_eq!(lines, ["plums = 8"]);
    Ok(db.close()?)
}
