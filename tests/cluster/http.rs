//! The HTTP ports of nodes: values with their tags, redirects, and pages.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::processes::{NodeProcess, await_equal, cluster, found, leader};
use crate::support::{PATIENCE, patiently};

/// What a node has answered.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    status: u16,
    head: String,
    pub(crate) body: String,
}

impl HttpAnswer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Sends a request to one node, on a connection of its own. Headers end in line breaks.
pub(crate) fn send(node: &NodeProcess, request: &str, headers: &str, body: &[u8]) -> HttpAnswer {
    let mut stream = TcpStream::connect(&node.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (host, size) = (&node.http, body.len());
    let head = format!(
        "{request} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {size}\r\n\
         {headers}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A node may answer before it has read everything.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{read:?}: {text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    HttpAnswer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Sends a request that may be repeated until the node leads and answers.
fn settled(node: &NodeProcess, request: &str, headers: &str, body: &[u8]) -> HttpAnswer {
    patiently(|| {
        let answer = send(node, request, headers, body);
        if answer.status == 503 { Err(format!("{answer:?}")) } else { Ok(answer) }
    })
}

#[test]
fn values_over_http_are_changed_only_as_expected() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = cluster(3, 1, dir.path());
    let at = leader(&nodes, 1);
    let (leads, follows) = (&nodes[at], &nodes[(at + 1) % 3]);
    let (put, get, delete) =
        ("PUT /v1/keys/a%2Fb%20c", "GET /v1/keys/a%2Fb%20c", "DELETE /v1/keys/a/b%20c");
    assert_eq!(settled(leads, get, "", b"").status, 404);
    // A value is made once, and then changed by those alone that have seen it.
    assert_eq!(send(leads, put, "if-match: *\r\n", b"0").status, 412);
    assert_eq!(send(leads, put, "if-none-match: *\r\n", b"1").status, 204);
    assert_eq!(send(leads, put, "if-none-match: *\r\n", b"2").status, 412);
    let first = send(leads, get, "", b"");
    assert_eq!((first.status, first.body.as_str()), (200, "1"));
    let tag = first.header("etag").unwrap().to_owned();
    let matching = |tag: &str| format!("if-match: {tag}\r\n");
    assert_eq!(send(leads, get, &format!("if-none-match: {tag}\r\n"), b"").status, 304);
    assert_eq!(send(leads, put, &matching(&tag), b"2").status, 204);
    assert_eq!(send(leads, put, &matching(&tag), b"3").status, 412);
    let second = send(leads, get, &format!("if-none-match: {tag}\r\n"), b"");
    assert_eq!((second.status, second.body.as_str()), (200, "2"));
    assert_eq!(second.header("x-bitcask-ttl"), None);
    let tag = second.header("etag").unwrap().to_owned();
    let either = format!("if-match: \"0\", {tag}\r\nx-bitcask-ttl: 1000\r\n");
    assert_eq!(send(leads, put, &either, b"2").status, 204);
    let third = send(leads, get, "", b"");
    let left: f64 = third.header("x-bitcask-ttl").unwrap().parse().unwrap();
    assert!(left > 0.0 && left <= 1000.0, "{left}");
    // The time to live belongs to what is compared.
    assert_ne!(third.header("etag"), Some(tag.as_str()));
    assert_eq!(send(leads, delete, &matching(&tag), b"").status, 412);
    for wrong in ["0", "-1", "soon"] {
        let header = format!("x-bitcask-ttl: {wrong}\r\n");
        assert_eq!(send(leads, put, &header, b"3").status, 400, "{wrong}");
    }
    assert_eq!(send(leads, "PUT /v1/keys/%zz", "", b"3").status, 400);
    assert_eq!(send(leads, put, "", &vec![0; (15 << 20) + 1]).status, 413);
    // Another node sends clients to the leader, or says what it has.
    await_equal(&nodes);
    for (request, body) in [(put, &b"3"[..]), (get, b""), (delete, b"")] {
        let elsewhere = send(follows, request, "", body);
        assert_eq!(elsewhere.status, 307, "{elsewhere:?}");
        let path = request.split(' ').nth(1).unwrap();
        let url = format!("http://{}{path}", leads.http);
        assert_eq!(elsewhere.header("location"), Some(url.as_str()));
    }
    let stale = send(follows, "GET /v1/keys/a%2Fb%20c?consistency=stale", "", b"");
    assert_eq!((stale.status, stale.body.as_str()), (200, "2"));
    assert_eq!(stale.header("etag"), third.header("etag"));
    stale.header("x-bitcask-age").unwrap().parse::<f64>().unwrap();
    assert_eq!(send(leads, delete, "", b"").status, 204);
    assert_eq!(send(leads, delete, "", b"").status, 404);
}

/// Returns the figure of a group.
pub(crate) fn figure(metrics: &str, name: &str, group: u64) -> Option<u64> {
    let start = format!("bitcask_cluster_{name}{{group=\"{group}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
}

#[test]
fn pages_of_a_node_show_its_groups_to_those_with_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes: Vec<_> = (1..=2).map(|id| NodeProcess::new(id, dir.path())).collect();
    for node in &mut nodes {
        node.variables.push(("BITCASK_TOKEN".into(), "a token".into()));
    }
    nodes[0].start();
    patiently(|| TcpStream::connect(&nodes[0].http));
    // A node without a cluster is not well, and says so to everybody.
    let alone = send(&nodes[0], "GET /health", "", b"");
    assert_eq!(alone.status, 503, "{alone:?}");
    nodes[0].kill();
    found(&mut nodes, 2);
    let token = "authorization: Bearer a token\r\n";
    for request in ["GET /metrics", "GET /v1/cluster", "GET /v1/keys/a", "PUT /v1/keys/a"] {
        assert_eq!(send(&nodes[0], request, "", b"").status, 401, "{request}");
        let wrong = "authorization: Bearer another\r\n";
        assert_eq!(send(&nodes[0], request, wrong, b"").status, 401, "{request}");
    }
    let at = leader(&nodes, 1);
    assert_eq!(settled(&nodes[at], "PUT /v1/keys/{a}", token, b"1").status, 204);
    await_equal(&nodes);
    for node in &nodes {
        assert_eq!(settled(node, "GET /health", "", b"").status, 200);
        let metrics = send(node, "GET /metrics", token, b"");
        assert_eq!(metrics.status, 200);
        let status = node.admin().status().unwrap();
        for group in 0..=2 {
            let leads = u64::from(nodes[leader(&nodes, group)].id == node.id);
            assert_eq!(figure(&metrics.body, "is_leader", group), Some(leads));
            assert_eq!(figure(&metrics.body, "has_leader", group), Some(1));
            let found = figure(&metrics.body, "applied_index", group);
            let known = status.groups[usize::try_from(group).unwrap()].applied;
            assert!(found.is_some() && found <= known, "{found:?} {known:?}");
            // Only a leader knows what the others lack.
            let lag = figure(&metrics.body, "lag_entries", group);
            assert_eq!(lag.is_some(), leads == 1, "{lag:?}");
            for name in [
                "term",
                "last_log_index",
                "keys",
                "size_bytes",
                "snapshot_sent_bytes",
                "snapshot_sending_bytes",
            ] {
                assert!(figure(&metrics.body, name, group).is_some(), "{name}");
            }
            let age = figure(&metrics.body, "quorum_age_ms", group);
            assert_eq!(age.is_some(), leads == 1, "{age:?}");
        }
        let typed = metrics.body.lines().filter(|line| line.starts_with("# TYPE"));
        assert_eq!(typed.clone().count(), 13);
        let listed = include_str!("../../docs/observability.md");
        for name in typed.map(|line| line.split(' ').nth(2).unwrap()) {
            assert!(
                listed.contains(&format!("| `{name}` |")),
                "{name} is not in the documentation"
            );
        }
        let cluster = send(node, "GET /v1/cluster", token, b"");
        let shown: Value = serde_json::from_str(&cluster.body).unwrap();
        assert_eq!(shown["id"], node.id);
        assert_eq!(shown["nodes"].as_array().unwrap().len(), 2);
        assert_eq!(shown["groups"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn the_dashboard_and_what_it_reads_show_all_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes: Vec<_> = (1..=2).map(|id| NodeProcess::new(id, dir.path())).collect();
    for node in &mut nodes {
        node.variables.push(("BITCASK_TOKEN".into(), "a token".into()));
    }
    found(&mut nodes, 2);
    let token = "authorization: Bearer a token\r\n";
    for node in &nodes {
        // The page itself tells nothing, so it needs no token.
        let dashboard = send(node, "GET /dashboard", "", b"");
        assert_eq!(dashboard.status, 200);
        assert_eq!(dashboard.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(dashboard.body.contains("<title>bitcask cluster</title>"), "{}", dashboard.body);
        assert_eq!(send(node, "GET /v1/cluster/nodes", "", b"").status, 401);
        let reports = send(node, "GET /v1/cluster/nodes", token, b"");
        let reports: Value = serde_json::from_str(&reports.body).unwrap();
        let number = |report: &Value| report["status"]["groups"][2]["number"].clone();
        let known = reports.as_array().unwrap().iter();
        let known: Vec<_> = known.map(|report| (report["id"].clone(), number(report))).collect();
        assert_eq!(known, [(1.into(), 2.into()), (2.into(), 2.into())], "{reports}");
    }
    let at = leader(&nodes, 1);
    nodes[at].admin().snapshot().unwrap();
    patiently(|| {
        let metrics = send(&nodes[at], "GET /metrics", token, b"").body;
        // So short a log is not purged.
        assert!(metrics.contains("# TYPE bitcask_cluster_purged_index gauge"), "{metrics}");
        figure(&metrics, "snapshot_index", 1).ok_or(metrics)
    });
    // A node that is lost is shown as such by the others.
    nodes[1].kill();
    let reports = send(&nodes[0], "GET /v1/cluster/nodes", token, b"");
    let reports: Value = serde_json::from_str(&reports.body).unwrap();
    assert_eq!(reports[0]["status"]["id"], 1, "{reports}");
    assert!(reports[1]["status"].is_null() && reports[1]["error"].is_string(), "{reports}");
}
