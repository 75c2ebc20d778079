//! `/v1`: all of the store, with keys and values of any bytes.

use bitcask::server::ServerOptions;
use serde_json::json;

use crate::support::{Running, small};

#[test]
fn keys_and_values_are_any_bytes() {
    let server = Running::new();
    let all: Vec<u8> = (0..=255).collect();
    let key: String = all.iter().fold(String::new(), |key, byte| key + &format!("%{byte:02x}"));
    for key in [key.as_str(), "", "a/b//c", "..%2f", "%2e%2e"] {
        let target = format!("/v1/keys/{key}");
        server.get(&target).has(404);
        server.send("PUT", &target, &[], &all).has(204);
        let answer = server.get(&target).has(200);
        assert_eq!(answer.body, all);
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        server.send("DELETE", &target, &[], b"").has(204);
        server.send("DELETE", &target, &[], b"").has(404);
    }
    // The same key, written in two ways.
    server.put("a%2Fb", "v");
    assert_eq!(server.get("/v1/keys/a/b").text(), "v");
    server.put("empty", "");
    assert_eq!(server.get("/v1/keys/empty").has(200).body, b"");
    server.get("/v1/keys/%zz").has(400);
    let (_dir, db) = server.stopped();
    assert_eq!(db.get("a/b").unwrap().unwrap(), "v");
}

#[test]
fn head_has_the_headers_of_get() {
    let server = Running::new();
    server.put("k", "value");
    let (get, head) = (server.get("/v1/keys/k"), server.send("HEAD", "/v1/keys/k", &[], b""));
    for name in ["etag", "content-length", "content-type", "accept-ranges"] {
        assert!(get.header(name).is_some(), "{name}");
        assert_eq!(get.header(name), head.header(name), "{name}");
    }
    server.send("HEAD", "/v1/keys/none", &[], b"").has(404);
}

#[test]
fn head_reads_no_value_and_knows_no_range() {
    let server = Running::new();
    server.put("k", "0123456789");
    let done = || server.get("/v1/stats").has(200).value()["done"].clone();
    let before = done();
    for range in ["bytes=0-3", "bytes=99-"] {
        let head = server.send("HEAD", "/v1/keys/k", &[("range", range)], b"").has(200);
        assert_eq!(head.header("content-length"), Some("10"));
        assert_eq!(head.header("content-range"), None);
    }
    let after = done();
    assert_eq!(after["bytes_read"], before["bytes_read"]);
    assert_eq!(after["hits"].as_u64().unwrap(), before["hits"].as_u64().unwrap() + 2);
    let tag = server.get("/v1/keys/k").header("etag").unwrap().to_owned();
    server.send("HEAD", "/v1/keys/k", &[("if-none-match", &tag)], b"").has(304);
    server.send("HEAD", "/v1/keys/k", &[("if-match", "\"1\"")], b"").has(412);
}

#[test]
fn parts_of_values_are_read() {
    let server = Running::new();
    server.put("k", "0123456789");
    let part = |range: &str| server.send("GET", "/v1/keys/k", &[("range", range)], b"");
    for (range, text, place) in [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=5-100", "56789", "bytes 5-9/10"),
    ] {
        let answer = part(range).has(206);
        assert_eq!((answer.text().as_str(), answer.header("content-range")), (text, Some(place)));
    }
    let behind = part("bytes=10-").has(416);
    assert_eq!(behind.header("content-range"), Some("bytes */10"));
    assert_eq!(part("bytes=0-1,3-4").has(200).text(), "0123456789");
    // A part of another version makes no sense.
    let tag = server.get("/v1/keys/k").header("etag").unwrap().to_owned();
    let with = |tag: &str| {
        let headers = [("range", "bytes=0-0"), ("if-range", tag)];
        server.send("GET", "/v1/keys/k", &headers, b"").status
    };
    assert_eq!([with(&tag), with("\"1\"")], [206, 200]);
}

#[test]
fn a_change_can_depend_on_the_version() {
    let server = Running::new();
    let put = |name: &str, tag: &str, value: &str| {
        server.send("PUT", "/v1/keys/k", &[(name, tag)], value.as_bytes())
    };
    let tag = || server.get("/v1/keys/k").header("etag").unwrap().to_owned();
    put("if-match", "*", "too early").has(412);
    put("if-none-match", "*", "first").has(204);
    put("if-none-match", "*", "again").has(412);
    let first = tag();
    put("if-match", &first, "second").has(204);
    let refused = put("if-match", &first, "late").has(412);
    assert_eq!(refused.header("etag"), Some(tag().as_str()));
    assert_eq!(refused.value()["code"], "precondition_failed");
    put("if-match", &format!("\"1\", {}", tag()), "third").has(204);
    put("if-match", "third", "no tag").has(400);
    put("if-match", "\"a\"b\"", "no tag").has(400);
    assert_eq!(server.get("/v1/keys/k").text(), "third");
    let unchanged = server.send("GET", "/v1/keys/k", &[("if-none-match", &tag())], b"").has(304);
    assert_eq!(unchanged.header("etag"), Some(tag().as_str()));
    server.send("GET", "/v1/keys/k", &[("if-none-match", &first)], b"").has(200);
    server.send("GET", "/v1/keys/k", &[("if-match", &first)], b"").has(412);
    server.send("DELETE", "/v1/keys/k", &[("if-match", &first)], b"").has(412);
    server.send("DELETE", "/v1/keys/k", &[("if-match", &tag())], b"").has(204);
    server.get("/v1/keys/k").has(404);
}

#[test]
fn keys_live_as_long_as_they_are_told() {
    let server = Running::new();
    let put = |ttl: &str| server.send("PUT", "/v1/keys/k", &[("x-bitcask-ttl", ttl)], b"v");
    put("3600").has(204);
    let left = || {
        let answer = server.send("HEAD", "/v1/keys/k", &[], b"").has(200);
        answer.header("x-bitcask-ttl").map(|left| left.parse::<f64>().unwrap())
    };
    assert!(left().is_some_and(|left| left > 3000.0 && left <= 3600.0));
    put("keep").has(204);
    assert!(left().is_some());
    server.put("k", "v");
    assert!(left().is_none());
    put("0").has(204);
    server.get("/v1/keys/k").has(404);
    put("60, keep").has(204);
    put("keep,60").has(204);
    let wrong = ["-1", "soon", "nan", "1e300", "3, 4", "3, 4, keep", "keep, keep", "60,", ""];
    for wrong in wrong {
        put(wrong).has(400);
    }
    let expires = ("x-bitcask-expires-at", "2040-01-31T12:00:00Z");
    let both = [expires, ("x-bitcask-ttl", "60")];
    server.send("PUT", "/v1/keys/k", &both, b"v").has(400);
    let with_keep = [expires, ("x-bitcask-ttl", "keep")];
    server.send("PUT", "/v1/keys/k", &with_keep, b"v").has(204);
    server.send("PUT", "/v1/keys/k", &[("x-bitcask-durable", "perhaps")], b"v").has(400);
}

#[test]
fn a_page_ends_only_behind_a_key_whose_path_is_accepted() {
    let long = |first: char| first.to_string() + &"\u{e9}".repeat(12_000);
    let server = Running::filled(small(), ServerOptions::new(), |db| {
        for key in ["a", &long('b'), &long('c'), "d", &long('e')] {
            db.put(key, "").unwrap();
        }
    });
    for (path, ways) in [("/v1/keys", &["", "&reverse=true"][..]), ("/kv", &[""])] {
        for way in ways {
            let (mut path, mut lens) = (format!("{path}?limit=1{way}"), Vec::new());
            loop {
                let page = server.get(&path).has(200).value();
                lens.push(page["keys"].as_array().unwrap().len());
                let Some(next) = page["next"].as_str() else { break };
                path = next.to_owned();
            }
            let expected = if way.is_empty() { [1, 3, 1] } else { [2, 3, 0] };
            assert_eq!(lens, expected, "{path}");
        }
    }
}

#[test]
fn keys_are_listed_from_either_end_page_by_page() {
    let server = Running::new();
    for key in ["a%2F1", "a%2F2", "a%2F3", "a%2F%ff", "b"] {
        server.put(key, key);
    }
    let keys = |path: &str| server.get(path).has(200).value()["keys"].clone();
    let [one, two, three] = [1, 2, 3].map(|number| json!({"key": format!("a/{number}")}));
    let other = json!({"key_base64": "YS//"});
    assert_eq!(keys("/v1/keys?prefix=a/"), json!([one, two, three, other]));
    assert_eq!(keys("/v1/keys?prefix=a/&reverse&limit=2"), json!([other, three]));
    assert_eq!(keys("/v1/keys?after=a/1&before=a/3"), json!([two]));
    assert_eq!(keys("/v1/keys?after=a/%ff"), json!([{"key": "b"}]));
    assert_eq!(keys("/v1/keys?prefix=a/&from=a/3"), json!([three, other]));
    assert_eq!(keys("/v1/keys?prefix=a/&from=a&limit=1"), json!([one]));
    assert_eq!(keys("/v1/keys?prefix=a/%ff&from=a/3&reverse"), json!([other]));
    for nothing in ["prefix=a/&from=b", "prefix=%ff", "prefix=%ff%ff&from=%ff"] {
        assert_eq!(keys(&format!("/v1/keys?{nothing}")), json!([]), "{nothing}");
    }
    for way in ["", "&reverse=true"] {
        let (mut path, mut found) = (format!("/v1/keys?prefix=a/&limit=1{way}"), Vec::new());
        loop {
            let page = server.get(&path).has(200).value();
            found.extend(page["keys"].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(next) => path = next.to_owned(),
                None => break,
            }
        }
        if !way.is_empty() {
            found.reverse();
        }
        assert_eq!(json!(found), json!([one, two, three, other]), "{way}");
    }
    let with_value = keys("/v1/keys?prefix=b&values=true");
    assert_eq!(with_value, json!([{"key": "b", "value": "b"}]));
    for wrong in ["limit=10001", "limit=", "prefx=a", "reverse=maybe", "prefix=%f"] {
        server.get(&format!("/v1/keys?{wrong}")).has(400);
    }
}

#[test]
fn a_batch_changes_all_or_nothing() {
    let server = Running::new();
    server.put("old", "v");
    let batch = |body: &str| server.json("POST", "/v1/batch", body);
    let body = r#"{"operations":[{"op":"put","key":"a","value":"1"},
        {"op":"put","key_base64":"/w==","value_base64":"/v8=","ttl":3600},
        {"op":"put","key":"late","value":"v","expires_at":"2001-01-01T00:00:00Z"},
        {"op":"delete","key":"old"}],"durable":true}"#;
    batch(body).is(200, json!({"count": 4}));
    assert_eq!(server.get("/v1/keys/a").text(), "1");
    assert_eq!(server.get("/v1/keys/%ff").has(200).body, b"\xfe\xff");
    let head = server.send("HEAD", "/v1/keys/%ff", &[], b"").has(200);
    assert!(head.header("x-bitcask-ttl").is_some());
    server.get("/v1/keys/late").has(404);
    server.get("/v1/keys/old").has(404);
    let refused = [
        r#"{"operations":[{"op":"put","key":"b","value":"1"},{"op":"put","key":"c"}]}"#,
        r#"{"operations":[{"op":"put","key":"b","value":"1"},{"op":"move","key":"c"}]}"#,
        r#"{"operations":[{"op":"put","key":"b","value":"1"},{"op":"delete","key":"c","ttl":1}]}"#,
        r#"{"operations":[{"op":"put","key":"b","value":"1","ttl":-1}]}"#,
        r#"{"operations":[{"op":"put","key":"b","value":"1","ttl":1,"expires_at":"2030-01-01T00:00:00Z"}]}"#,
        r#"{"operations":[{"op":"put","key":"b","key_base64":"Yg==","value":"1"}]}"#,
        r#"{"operation":[]}"#,
        "[]",
        "",
    ];
    for body in refused {
        batch(body).has(400);
    }
    server.get("/v1/keys/b").has(404);
}

#[test]
fn many_values_are_read_at_once() {
    let server = Running::new();
    server.put("a", "1");
    server.put("%ff", b"\xfe\xff");
    let body = r#"{"keys":["a","none",{"key_base64":"/w=="},{"key":"a"}]}"#;
    let expected = json!({"values": [
        {"key": "a", "value": "1", "found": true},
        {"key": "none", "found": false},
        {"key_base64": "/w==", "value_base64": "/v8=", "found": true},
        {"key": "a", "value": "1", "found": true},
    ]});
    server.json("POST", "/v1/get", body).is(200, expected);
    let many = format!("{{\"keys\":[{}]}}", vec!["\"a\""; 10_001].join(","));
    let refused = server.json("POST", "/v1/get", &many).has(413);
    assert_eq!(refused.value()["code"], "too_large");
    server.json("POST", "/v1/get", r#"{"keys":[7]}"#).has(400);
}

#[test]
fn the_values_of_one_answer_are_bounded() {
    let server = Running::with(ServerOptions::new());
    server.put("k", vec![b'x'; 1 << 20]);
    let keys = |count: usize| format!("{{\"keys\":[{}]}}", vec!["\"k\""; count].join(","));
    server.json("POST", "/v1/get", &keys(16)).has(200);
    let refused = server.json("POST", "/v1/get", &keys(17)).has(413);
    assert_eq!(refused.value()["code"], "too_large");
}

#[test]
fn values_that_are_too_large_for_an_answer_are_not_read() {
    let store = small().segment_size(64 << 20);
    let server = Running::filled(store, ServerOptions::new(), |db| {
        db.put("k", vec![b'x'; 17 << 20]).unwrap();
    });
    server.damage_value();
    server.get("/v1/keys/k").has(500);
    server.json("POST", "/v1/get", r#"{"keys":["k"]}"#).has(413);
}

/// It needs the version alone. The old value may be large, and may have to be decompressed.
#[test]
fn a_change_under_a_condition_does_not_read_the_old_value() {
    let store = small().segment_size(64 << 20);
    let server = Running::filled(store, ServerOptions::new(), |db| {
        db.put("k", vec![b'x'; 17 << 20]).unwrap();
    });
    server.damage_value();
    server.get("/v1/keys/k").has(500);
    let key = "/v1/keys/k";
    let tag = server.send("HEAD", key, &[], b"").has(200).header("etag").unwrap().to_owned();
    server.send("PUT", key, &[("if-none-match", "*")], b"new").has(412);
    let refused = server.send("DELETE", key, &[("if-match", "\"1\"")], b"").has(412);
    assert_eq!(refused.header("etag"), Some(&*tag));
    server.send("PUT", key, &[("if-match", &tag)], b"new").has(204);
    assert_eq!(server.get(key).text(), "new");
}

#[test]
fn upkeep_reports_what_it_has_done() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::with(ServerOptions::new().backup_dir(dir.path()));
    for _ in 0..3 {
        server.put("k", vec![b'x'; 700_000]);
    }
    // Segments are sealed in the background.
    let sealed = || server.get("/v1/segments").has(200).value()["segments"].clone();
    while sealed().as_array().unwrap().len() < 2 {}
    let count = sealed().as_array().unwrap().len();
    let page = server.get("/v1/segments?limit=1").has(200).value();
    assert_eq!(page["segments"].as_array().unwrap().len(), 1);
    assert_eq!(page["next"].is_null(), count == 1);
    let merged = server.json("POST", "/v1/merge", r#"{"force":true}"#).has(200).value();
    assert!(merged["freed_size"].as_u64().unwrap() >= 700_000, "{merged}");
    server.json("POST", "/v1/merge", r#"{"forse":true}"#).has(400);
    server.json("POST", "/v1/merge", "").has(200);
    let verified = server.json("POST", "/v1/verify", "").has(200).value();
    assert_eq!((&verified["clean"], &verified["damage"]), (&json!(true), &json!([])));
    let backup = server.json("POST", "/v1/backup", r#"{"name":"monday"}"#).has(200).value();
    assert_eq!(backup["path"], json!(dir.path().join("monday")));
    server.json("POST", "/v1/backup", r#"{"name":"monday"}"#).has(400);
    server.json("POST", "/v1/backup", r#"{"name":"../monday"}"#).has(400);
    let copy = bitcask::Bitcask::open(dir.path().join("monday"), crate::support::small()).unwrap();
    assert_eq!(copy.get("k").unwrap().unwrap().len(), 700_000);
}

#[test]
fn backups_need_a_directory_of_the_owner() {
    let refused = Running::new().json("POST", "/v1/backup", r#"{"name":"monday"}"#).has(403);
    assert_eq!(refused.value()["code"], "forbidden");
}

#[test]
fn figures_count_what_was_done() {
    let server = Running::new();
    // The server itself has looked whether the store was a follower's.
    let before = server.get("/v1/stats").has(200).value();
    server.put("k", "v");
    server.get("/v1/keys/k").has(200);
    server.get("/v1/keys/none").has(404);
    let stats = server.get("/v1/stats").has(200).value();
    assert_eq!(stats["store"]["keys"], 1);
    let misses = |stats: &serde_json::Value| stats["done"]["misses"].as_u64().unwrap();
    assert_eq!((&stats["done"]["puts"], misses(&stats)), (&json!(1), misses(&before) + 1));
    assert_eq!(stats["server"]["requests"], 4);
    assert_eq!(stats["server"]["latency"]["count"], 4);
}
