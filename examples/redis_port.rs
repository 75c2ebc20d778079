//! Serves a store to clients of Redis.
//!
//! `cargo run --example redis_port --features resp -- DIR ADDRESS` runs until a client sends
//! `SHUTDOWN`. Without arguments, it serves itself and ends.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::{env, thread};

use bitcask::resp::{RespOptions, RespServer};
use bitcask::{Bitcask, Options, SyncPolicy};

/// Number of databases that `SELECT` finds.
const DATABASES: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    if let (Some(dir), Some(address)) = (args.next(), args.next()) {
        // A third argument makes each write durable before it is answered.
        let policy = if args.next().is_some() { SyncPolicy::Always } else { SyncPolicy::Never };
        let options = Options::new().sync_policy(policy);
        let db = Arc::new(Bitcask::open(format!("{dir}/0"), options.clone())?);
        let server = RespOptions::new().databases(dir, DATABASES, options);
        let server = RespServer::bind(address, db, server)?;
        println!("listening on {}", server.address());
        return Ok(server.run()?);
    }

    let dir = tempfile::tempdir()?;
    let db = Arc::new(Bitcask::open(dir.path(), Options::default())?);
    let server = RespServer::bind("127.0.0.1:0", Arc::clone(&db), RespOptions::new())?;
    let (address, stop) = (server.address(), server.stop_handle());
    let running = thread::spawn(move || server.run());

    // Any client of Redis will do. People can type commands too.
    let mut client = TcpStream::connect(address)?;
    client.write_all(b"SET greeting hello EX 60\r\nGET greeting\r\n")?;
    let mut replies = [0; 16];
    client.read_exact(&mut replies)?;
    assert_eq!(&replies, b"+OK\r\n$5\r\nhello\r\n");

    // The program sees what the client has stored, while it is being served.
    assert_eq!(db.get("greeting")?.ok_or("it was set")?, "hello");
    db.put("answer", "from the program")?;

    stop.stop();
    running.join().map_err(|_| "the server has panicked")??;
    println!("a client has stored a greeting, and the program has read it");
    Ok(())
}
