//! The dialects of bitcaskpy and pybitcask: paths, fields, statuses and errors are theirs.

use serde_json::json;

use crate::support::Running;

#[test]
fn kv_answers_as_bitcaskpy_does() {
    let server = Running::new();
    let stored = json!({"status": "success", "message": "Key 'k' stored successfully"});
    server.json("PUT", "/kv/k", r#"{"value":"bar"}"#).is(200, stored);
    server.get("/kv/k").is(200, json!({"key": "k", "value": "bar", "found": true}));
    server.get("/kv/none").is(200, json!({"key": "none", "value": null, "found": false}));
    for key in ["k", "none"] {
        let message = format!("Key '{key}' deleted successfully");
        let deleted = json!({"status": "success", "message": message});
        server.json("DELETE", &format!("/kv/{key}"), "").is(200, deleted);
    }
    server.get("/kv/k").is(200, json!({"key": "k", "value": null, "found": false}));
}

#[test]
fn pybitcask_has_its_paths_and_shapes() {
    let server = Running::new();
    let put = |body: &str| server.json("POST", "/put", body);
    put(r#"{"key":"k","value":{"a":[1,null]}}"#).is(200, json!({"status": "success", "key": "k"}));
    server.get("/get/k").is(200, json!({"key": "k", "value": {"a": [1, null]}, "found": true}));
    server.get("/get/no").is(200, json!({"key": "no", "value": null, "found": false}));
    let batch = server.json("POST", "/batch", r#"{"data":{"a":1,"b":"two","c":null}}"#);
    batch.is(200, json!({"status": "success", "count": 3}));
    server.get("/get/c").is(200, json!({"key": "c", "value": null, "found": true}));
    server.get("/keys").is(200, json!({"keys": ["a", "b", "c", "k"], "count": 4}));
    server.json("DELETE", "/delete/a", "").is(200, json!({"key": "a", "deleted": true}));
    server.json("DELETE", "/delete/a", "").is(200, json!({"key": "a", "deleted": false}));
    let data_dir = server.dir.path().join("data").canonicalize().unwrap();
    let status = json!({
        "status": "running", "mode": "normal", "data_dir": data_dir, "keys_count": 3
    });
    server.get("/").is(200, status);
    let cleared = json!({"status": "success", "message": "Database cleared"});
    server.json("POST", "/clear", "").is(200, cleared);
    server.get("/keys").is(200, json!({"keys": [], "count": 0}));
}

#[test]
fn health_has_the_fields_of_both() {
    let expected = json!({"status": "healthy", "version": "0.1.0", "service": "pybitcask-server"});
    Running::new().get("/health").is(200, expected);
}

#[test]
fn errors_have_a_detail_and_nothing_else() {
    let server = Running::new();
    server.get("/nowhere").is(404, json!({"detail": "Not Found"}));
    server.get("/kv/a/b").is(404, json!({"detail": "Not Found"}));
    let refused = server.json("POST", "/kv/k", "{}");
    assert_eq!(refused.header("allow"), Some("GET,HEAD,PUT,DELETE"));
    refused.is(405, json!({"detail": "Method Not Allowed"}));
    let missing = server.json("PUT", "/kv/k", "{}").wrong_field();
    assert_eq!(missing, (json!(["body", "value"]), "missing".into()));
    let number = server.json("PUT", "/kv/k", r#"{"value":7}"#).wrong_field();
    assert_eq!(number, (json!(["body", "value"]), "string_type".into()));
    let empty = server.json("PUT", "/kv/k", "").wrong_field();
    assert_eq!(empty, (json!(["body"]), "missing".into()));
    let broken = server.json("POST", "/put", r#"{"key":"k","#).wrong_field();
    assert_eq!((broken.0[0].clone(), broken.1), (json!("body"), "json_invalid".into()));
    let list = server.json("POST", "/batch", r#"{"data":[1]}"#).wrong_field();
    assert_eq!(list, (json!(["body", "data"]), "dict_type".into()));
    let key = server.json("PUT", "/kv/%ff", r#"{"value":"v"}"#).wrong_field();
    assert_eq!(key, (json!(["path", "key"]), "string_type".into()));
    // Nothing of this was stored.
    server.get("/keys").is(200, json!({"keys": [], "count": 0}));
}

#[test]
fn what_one_dialect_has_stored_the_others_read() {
    let server = Running::new();
    // Through /put, and what /kv and /v1 read.
    let cases = [
        (r#""blue""#, "blue"),
        (r#"{"a": 1}"#, r#"{"a": 1}"#),
        ("12345678901234567890.50", "12345678901234567890.50"),
        (r#""42""#, r#""42""#),
        ("null", "null"),
        (r#""""#, ""),
    ];
    for (json, text) in cases {
        server.json("POST", "/put", &format!(r#"{{"key":"k","value":{json}}}"#)).has(200);
        let expected = json!({"key": "k", "value": text, "found": true});
        server.get("/kv/k").is(200, expected);
        assert_eq!(server.get("/v1/keys/k").text(), text);
        let again = format!(r#"{{"key":"k","value":{json},"found":true}}"#);
        assert_eq!(server.get("/get/k").text(), again);
    }
    // Through /kv, and what /get reads.
    for (text, json) in [("blue", r#""blue""#), ("42", "42"), ("{}", "{}"), ("{", r#""{""#)] {
        let body = json!({"value": text}).to_string();
        server.json("PUT", "/kv/k", &body).has(200);
        assert_eq!(
            server.get("/get/k").text(),
            format!(r#"{{"key":"k","value":{json},"found":true}}"#)
        );
        server.get("/kv/k").is(200, json!({"key": "k", "value": text, "found": true}));
    }
    // Through /v1: bytes that are no text.
    server.put("k", b"\xff\xfe");
    for path in ["/kv/k", "/get/k"] {
        let refused = server.get(path).has(409).value();
        assert!(refused["detail"].as_str().unwrap().contains("/v1/keys/k"), "{refused}");
    }
}

#[test]
fn keys_are_any_text() {
    let server = Running::new();
    let key = "\u{e9} %\"?#";
    let path = "%C3%A9%20%25%22%3F%23";
    server.json("PUT", &format!("/kv/{path}"), r#"{"value":"v"}"#).has(200);
    let expected = json!({"key": key, "value": "v", "found": true});
    server.get(&format!("/kv/{path}")).is(200, expected);
    server.put("%ff", "not text");
    // Keys that are not text cannot be in a list of text.
    server.get("/keys").is(200, json!({"keys": [key], "count": 1}));
    server.get("/kv").is(200, json!({"keys": [key], "count": 1, "next": null}));
}

#[test]
fn kv_lists_page_by_page() {
    let server = Running::new();
    for number in 0..5 {
        server.put(&format!("a%20{number}"), "v");
    }
    server.put("b", "v");
    let (mut path, mut pages) = ("/kv?prefix=a+&limit=2".to_owned(), Vec::new());
    loop {
        let page = server.get(&path).has(200).value();
        assert_eq!(
            usize::try_from(page["count"].as_u64().unwrap()).unwrap(),
            page["keys"].as_array().unwrap().len()
        );
        pages.push(page["keys"].clone());
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    let expected = json!([["a 0", "a 1"], ["a 2", "a 3"], ["a 4"]]);
    assert_eq!(json!(pages), expected);
    server.get("/kv?limit=0").has(400);
    server.get("/kv?limt=1").has(400);
}

#[test]
fn a_long_list_of_keys_is_complete() {
    let server = Running::new();
    let data: Vec<_> = (0..20_000).map(|number| format!("\"key {number:05}\":{number}")).collect();
    let body = format!("{{\"data\":{{{}}}}}", data.join(","));
    server.json("POST", "/batch", &body).is(200, json!({"status": "success", "count": 20_000}));
    let all = server.get("/keys").has(200).value();
    let keys = all["keys"].as_array().unwrap();
    assert_eq!((all["count"].as_u64(), keys.len()), (Some(20_000), 20_000));
    assert_eq!((&keys[0], &keys[19_999]), (&json!("key 00000"), &json!("key 19999")));
}

#[test]
fn request_ids_are_taken_over_or_made() {
    let server = Running::new();
    let answer = server.send("GET", "/health", &[("x-request-id", "mine-1")], b"");
    assert_eq!(answer.header("request-id"), Some("mine-1"));
    let made = server.get("/nowhere").header("request-id").unwrap().to_owned();
    assert_eq!(made.len(), 36);
    assert_ne!(server.get("/nowhere").header("request-id"), Some(made.as_str()));
}
