//! What a reviewer tried.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bitcask::{Bitcask, Options, SyncPolicy};

/// Writers that keep the sealing thread busy must not keep the log from being synced.
#[test]
#[ignore = "a measurement"]
fn an_interval_is_kept_while_segments_are_sealed() {
    let dir = tempfile::tempdir_in(std::env::var("REVIEW_DIR").unwrap_or("/tmp".into())).unwrap();
    let size: u64 = std::env::var("SEG").ok().and_then(|s| s.parse().ok()).unwrap_or(64 << 10);
    let options =
        Options::new().segment_size(size).sync(SyncPolicy::Interval(Duration::from_millis(50)));
    let db = Bitcask::open(dir.path(), options).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for t in 0..2_u8 {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let (mut n, mut worst) = (0_u64, Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let start = Instant::now();
                    db.put([t, (n % 100) as u8], vec![t; 4096]).unwrap();
                    worst = worst.max(start.elapsed());
                }
                println!("writer {t}: {n} puts, worst {worst:?}");
            });
        }
        let start = Instant::now();
        let (mut last, mut at, mut worst) = (0, Instant::now(), Duration::ZERO);
        while start.elapsed() < Duration::from_secs(6) {
            std::thread::sleep(Duration::from_millis(5));
            let syncs = db.stats().syncs;
            if syncs != last {
                (last, at) = (syncs, Instant::now());
            }
            worst = worst.max(at.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        println!("syncs {last}, longest without {worst:?}, {:?}", db.stats());
        assert!(worst < Duration::from_secs(1), "unsynced for {worst:?}, the interval is 50 ms");
    });
}

#[test]
fn the_keydir_takes_what_the_readme_says_after_overwrites_and_an_open() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), Options::new().sync(SyncPolicy::Never)).unwrap();
    for _ in 0..10 {
        for key in 0..100_000_u32 {
            db.put(key.to_be_bytes(), "v").unwrap();
        }
    }
    let before = db.stats();
    db.close().unwrap();
    let db = Bitcask::open(dir.path(), Options::new()).unwrap();
    let stats = db.stats();
    println!(
        "{} -> {} bytes a key",
        before.keydir_size / before.keys,
        stats.keydir_size / stats.keys
    );
    assert!(stats.keydir_size / stats.keys <= 27 + 5);
}

/// Readers in this process, without the lock, beside a writer that rotates, seals and clears.
#[test]
#[ignore]
fn readers_beside_a_writer_that_clears() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let secs: u64 = std::env::var("SECS").ok().and_then(|s| s.parse().ok()).unwrap_or(10);
    let options = || Options::new().segment_size(1024).sync(SyncPolicy::Never);
    drop(Bitcask::open(dir.path(), options()).unwrap());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (path, stop) = (dir.path(), &stop);
        scope.spawn(move || {
            let mut n = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let db = Bitcask::open(path, options()).unwrap();
                for _ in 0..200 {
                    n += 1;
                    let v = n.to_be_bytes().repeat((n % 13 + 1) as usize);
                    db.write(bitcask::Batch::new().put("a", &v).put("b", &v)).unwrap();
                    if n % 67 == 0 {
                        db.clear().unwrap();
                    }
                    if n % 5 == 0 {
                        db.sync().unwrap();
                    }
                }
                if n % 3 == 0 {
                    db.close().unwrap();
                }
            }
            println!("{n} batches");
        });
        scope.spawn(move || {
            let mut opened = 0;
            let mut last = 0;
            while !stop.load(Ordering::Relaxed) {
                let db = match Bitcask::open(path, options().read_only(true)) {
                    Ok(db) => db,
                    Err(error) => {
                        println!("READER {error}");
                        stop.store(true, Ordering::Relaxed);
                        panic!("{error}");
                    }
                };
                opened += 1;
                let (a, b) = (db.get("a").unwrap(), db.get("b").unwrap());
                assert_eq!(a, b);
                if let Some(a) = a {
                    let n = u64::from_be_bytes(a[..8].try_into().unwrap());
                    assert!(n >= last, "{n} after {last}");
                    last = n;
                }
            }
            println!("{opened} opened");
        });
        std::thread::sleep(Duration::from_secs(secs));
        stop.store(true, Ordering::Relaxed);
    });
}

/// A moment without file descriptors fails a write, not the store.
#[test]
#[ignore]
fn a_shortage_of_file_descriptors_fails_a_write_alone() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), Options::new().segment_size(4096).sync(SyncPolicy::Never))
        .unwrap();
    db.put("a", "1").unwrap();
    for free in 0..4 {
        let mut held = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            held.push(file);
        }
        held.truncate(held.len() - free);
        let result = (0..100).try_for_each(|_| db.put("b", vec![0; 1000]));
        println!("{free} free: {result:?}");
        drop(held);
        println!("   then: {:?}", db.put("c", "1"));
    }
}
