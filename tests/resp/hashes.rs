//! Small hashes.

use crate::support::Served;

#[test]
fn fields_are_set_read_and_deleted() {
    let served = Served::new();
    let mut client = served.client();
    client.is("HSET h a 1 b 2", "(2)");
    client.is("HSET h a 3 c 4", "(1)");
    client.is("HGET h a", "'3'");
    client.is("HGET h x", "nil");
    client.is("HGET missing x", "nil");
    client.is("HLEN h", "(3)");
    client.is("HEXISTS h b", "(1)");
    client.is("HEXISTS h x", "(0)");
    client.is("HSTRLEN h a", "(1)");
    client.is("HMGET h a x c", "['3' nil '4']");
    client.is("HMSET h d 5", "OK");
    client.is("HSETNX h d 6", "(0)");
    client.is("HSETNX h e 6", "(1)");
    client.is("HKEYS h", "['a' 'b' 'c' 'd' 'e']");
    client.is("HVALS h", "['3' '2' '4' '5' '6']");
    client.is("HINCRBY h a 39", "(42)");
    client.is("HINCRBY h n 1", "(1)");
    client.is("HINCRBYFLOAT h n 0.5", "'1.5'");
    client.fails("HINCRBY h n 1", "ERR hash value is not an integer");
    client.is("HDEL h a x b", "(2)");
    client.is("HDEL h c d e n", "(4)");
    client.is("EXISTS h", "(0)");
    client.fails("HSET h a", "ERR wrong number of arguments for \\'hset\\' command");
    client.fails("HSET h a 1 b", "ERR wrong number of arguments for \\'hset\\' command");
    // The mark that there have been hashes.
    assert_eq!(served.db.snapshot().len().unwrap(), 1);
}

#[test]
fn a_key_holds_one_type() {
    let served = Served::new();
    let mut client = served.client();
    client.is("SET s v", "OK");
    client.is("HSET h f v", "(1)");
    let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
    for line in ["HSET s f v", "HGET s f", "HLEN s", "HGETALL s", "HDEL s f", "HINCRBY s f 1"] {
        client.fails(line, wrong);
    }
    for line in ["GET h", "INCR h", "APPEND h x", "STRLEN h", "GETSET h x", "SET h x GET"] {
        client.fails(line, wrong);
    }
    client.is("MGET s h", "['v' nil]");
    client.is("SET h v", "OK");
    client.is("GET h", "'v'");
    client.is("HSET h2 f v", "(1)");
    client.is("MSET h2 v x y", "OK");
    // Three strings, x, and the mark: no field is left.
    assert_eq!(served.db.snapshot().len().unwrap(), 5);
}

#[test]
fn a_large_hash_is_scanned_in_parts() {
    let served = Served::new();
    let mut client = served.client();
    for number in 0..300 {
        client.is(&format!("HSET h field{number} {number}"), "(1)");
    }
    let (mut cursor, mut seen) = ("0".to_owned(), 0);
    loop {
        let reply = client.run(&format!("HSCAN h {cursor} COUNT 20 NOVALUES"));
        cursor = reply.split('\'').nth(1).unwrap().to_owned();
        seen += reply.matches("field").count();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen, 300);
    client.is("HSCAN h 0 COUNT 1000 MATCH field299", "['0' ['field299' '299']]");
    assert_eq!(client.run("HRANDFIELD h 10").matches("field").count(), 10);
    assert_eq!(client.run("HRANDFIELD h -10").matches("field").count(), 10);
    assert!(client.run("HRANDFIELD h").starts_with("'field"));
}

#[test]
fn concurrent_changes_of_a_hash_all_count() {
    let served = Served::new();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let mut client = served.client();
            scope.spawn(move || {
                for at in 0..50 {
                    client.is(&format!("HSET h f{number}-{at} x"), "(1)");
                    client.run("HINCRBY counts all 1");
                }
            });
        }
    });
    let mut client = served.client();
    client.is("HLEN h", "(200)");
    client.is("HGET counts all", "'200'");
}

#[test]
fn a_scan_goes_on_when_the_hash_has_become_small() {
    let served = Served::new();
    let mut client = served.client();
    let names: Vec<String> = (0..200).map(|number| format!("<{number}>")).collect();
    for name in &names {
        client.is(&format!("HSET h {name} x"), "(1)");
    }
    let first = client.run("HSCAN h 0 COUNT 10 NOVALUES");
    let mut left: Vec<&String> = names.iter().filter(|name| !first.contains(*name)).collect();
    for name in left.split_off(90) {
        client.is(&format!("HDEL h {name}"), "(1)");
    }
    let mut pages = vec![first];
    loop {
        let cursor = pages[pages.len() - 1].split('\'').nth(1).unwrap().to_owned();
        if cursor == "0" {
            break;
        }
        pages.push(client.run(&format!("HSCAN h {cursor} COUNT 10 NOVALUES")));
    }
    for name in left {
        let times: usize = pages.iter().map(|page| page.matches(name.as_str()).count()).sum();
        assert_eq!(times, 1, "{name}");
    }
}

#[test]
fn a_string_and_a_hash_that_are_put_at_once_leave_nothing_behind() {
    let served = Served::new();
    served.client().is("HSET first f v", "(1)");
    std::thread::scope(|scope| {
        for number in 0..4 {
            let mut client = served.client();
            scope.spawn(move || {
                for at in 0..1000 {
                    let key = at % 3;
                    if number % 2 == 0 {
                        client.is(&format!("SET k{key} x"), "OK");
                    } else {
                        client.run(&format!("HSET k{key} f{} x", at % 5));
                    }
                    if at % 4 == number {
                        client.run(&format!("DEL k{key}"));
                    }
                }
            });
        }
    });
    let mut client = served.client();
    client.run("DEL k0 k1 k2 first");
    client.is("DBSIZE", "(0)");
    let stored: Vec<_> = served.db.keys().map(Result::unwrap).collect();
    let fields = stored.iter().filter(|key| key.starts_with(b"\0h")).count();
    assert_eq!(fields, 0, "{stored:?}");
}

/// They may be many and large, and may have to be decompressed.
#[test]
fn what_needs_no_value_of_a_hash_reads_none() {
    let served = Served::new();
    let mut client = served.client();
    let value = vec![b'x'; 1 << 20];
    assert_eq!(client.run_args(&[b"HSET", b"h", b"f", &value, b"g", b"1"]), "(2)");
    client.is("HKEYS h", "['f' 'g']");
    let files = std::fs::read_dir(served.dir.path().join("0")).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let largest = files.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let contents = std::fs::read(&largest).unwrap();
    let place = contents.windows(100).position(|part| part == [b'x'; 100]).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(largest).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"damage", place as u64).unwrap();
    // Whoever reads the value notices.
    for line in ["HGET h f", "HGETALL h", "HSCAN h 0", "HRANDFIELD h 2 WITHVALUES"] {
        assert!(client.run(line).contains("checksum"), "{line}: {}", client.run(line));
    }
    client.is("HKEYS h", "['f' 'g']");
    client.is("HSCAN h 0 NOVALUES", "['0' ['f' 'g']]");
    assert_eq!(client.run("HRANDFIELD h 2").len(), "['f' 'g']".len());
    client.is("HSCAN h 0 MATCH g", "['0' ['g' '1']]");
    client.is("DEL h", "(1)");
}

#[test]
fn a_hash_of_many_fields_can_be_used_as_a_whole() {
    let served = Served::new();
    let mut client = served.client();
    let fields: Vec<_> = (0..600).map(|field| format!("f{field:03} {field}")).collect();
    let fields = fields.join(" ");
    let set = format!("HSET h {fields}");
    client.is(&set, "(600)");
    client.is("EXPIRE h 1000", "(1)");
    client.is("COPY h i", "(1)");
    client.is("HLEN i", "(600)");
    client.is("HGET i f599", "'599'");
    client.is("PERSIST i", "(1)");
    client.is("RENAME i h", "OK");
    client.is("TTL h", "(-1)");
    assert_eq!(client.run("HVALS h").split(' ').count(), 600);
    assert_eq!(client.run("HRANDFIELD h 1000").split(' ').count(), 600);
    client.is("SET h 1", "OK");
    client.is(&set.replace(" h ", " j "), "(600)");
    client.is("DEL j h", "(2)");
    client.is("DBSIZE", "(0)");
    // The mark that there have been hashes.
    assert_eq!(served.db.snapshot().len().unwrap(), 1);
}
