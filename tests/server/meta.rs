//! What is about the server itself.

use std::collections::BTreeSet;

use crate::support::Running;

#[test]
fn every_operation_of_the_document_exists() {
    let server = Running::new();
    let document = server.get("/openapi.json").has(200).value();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let (method, target) = (method.to_uppercase(), path.replace("{key}", "k"));
            described.insert(format!("{method} {path}"));
            if target == "/v1/stop" {
                continue;
            }
            let mut client = server.client();
            client.begin(&method, &target, &[], 0);
            let status = client.head().status;
            // A key that does not exist is found out by the route.
            let is_about_key = target == "/v1/keys/k" && status == 404;
            assert!(![404, 405].contains(&status) || is_about_key, "{method} {target}: {status}");
        }
    }
    let expected = [
        "DELETE /delete/{key}",
        "DELETE /kv/{key}",
        "DELETE /v1/keys/{key}",
        "GET /",
        "GET /get/{key}",
        "GET /health",
        "GET /keys",
        "GET /kv",
        "GET /kv/{key}",
        "GET /metrics",
        "GET /v1/changes",
        "GET /v1/keys",
        "GET /v1/keys/{key}",
        "GET /v1/segments",
        "GET /v1/snapshot",
        "GET /v1/stats",
        "HEAD /v1/keys/{key}",
        "POST /batch",
        "POST /clear",
        "POST /put",
        "POST /v1/backup",
        "POST /v1/batch",
        "POST /v1/get",
        "POST /v1/merge",
        "POST /v1/promote",
        "POST /v1/stop",
        "POST /v1/verify",
        "PUT /kv/{key}",
        "PUT /v1/keys/{key}",
    ];
    assert_eq!(described, expected.map(str::to_owned).into());
}

#[test]
fn metrics_have_the_form_of_prometheus() {
    let server = Running::new();
    server.put("k", "v");
    server.get("/v1/keys/k").has(200);
    server.get("/nowhere").has(404);
    let page = server.get("/metrics").has(200);
    assert!(page.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = page.text();
    let (mut typed, mut series) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(typed.insert(name.to_owned()), "twice: {line}");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(name.to_owned()), "twice: {line}");
        }
    }
    for name in ["bitcask_keys", "bitcask_puts_total", "bitcask_http_request_duration_seconds"] {
        assert!(typed.contains(name), "{name} is missing in:\n{text}");
    }
    for line in [
        "bitcask_puts_total 1\n",
        "bitcask_gets_total{result=\"hit\"} 1\n",
        "bitcask_http_requests_total{route=\"/v1/keys/{*key}\",status=\"204\"} 1\n",
        "bitcask_http_requests_total{route=\"none\",status=\"404\"} 1\n",
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
}

#[test]
fn metrics_count_connections() {
    let server = Running::new();
    let mut idle = server.client();
    idle.send("GET", "/health", &[], b"").has(200);
    let mut busy = server.client();
    busy.begin("PUT", "/v1/keys/k", &[("expect", "100-continue")], 1);
    assert_eq!(busy.head().status, 100);
    let mut asking = server.client();
    let mut counts = || {
        let page = asking.send("GET", "/metrics", &[], b"").has(200).text();
        ["bitcask_http_connections ", "bitcask_http_connections_idle "].map(|name| {
            let value = page.lines().find_map(|line| line.strip_prefix(name));
            value.unwrap_or_else(|| panic!("{name} in {page}")).parse::<u64>().unwrap()
        })
    };
    // A connection is idle a moment after its answer.
    while counts() != [3, 1] {}
    drop(busy);
    while counts() != [2, 1] {}
}

#[test]
fn pages_are_pages() {
    let server = Running::new();
    for path in ["/docs", "/redoc", "/dashboard"] {
        let page = server.get(path).has(200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.text().starts_with("<!doctype html>"));
    }
}
