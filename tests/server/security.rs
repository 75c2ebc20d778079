//! Who may do what.

use std::net::TcpStream;
use std::sync::Arc;

use bitcask::Bitcask;
use bitcask::server::{Server, ServerError, ServerOptions};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{Client, Running, small};

const CERTIFICATE: &[u8] = include_bytes!("fixtures/cert.pem");
const KEY: &[u8] = include_bytes!("fixtures/key.pem");

#[test]
fn a_token_is_required_where_data_is() {
    let server = Running::with(ServerOptions::new().token("secret"));
    let paths = [
        ("GET", "/v1/keys/k"),
        ("PUT", "/v1/keys/k"),
        ("POST", "/clear"),
        ("GET", "/kv/k"),
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/v1/stats"),
        ("POST", "/v1/stop"),
        ("GET", "/nowhere"),
        ("PATCH", "/kv/k"),
    ];
    for (method, path) in paths {
        let refused = server.send(method, path, &[], b"").has(401);
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        server.send(method, path, &[("authorization", "Bearer wrong")], b"").has(401);
    }
    for path in ["/health", "/docs", "/redoc", "/openapi.json", "/dashboard"] {
        server.get(path).has(200);
    }
    server.send("GET", "/v1/keys/k", &[("authorization", "Bearer secret")], b"").has(404);
    server.send("GET", "/v1/keys/k", &[("x-api-key", "secret")], b"").has(404);
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let server = Running::new();
    server.put("k", "v");
    let from = |origin: &'static str| [("origin", origin), ("content-type", "text/plain")];
    let strange: [&[(&str, &str)]; 3] = [
        &from("http://elsewhere.example"),
        &[("sec-fetch-site", "cross-site")],
        &[("origin", "null")],
    ];
    for headers in strange {
        let refused = server.send("POST", "/clear", headers, b"").has(403);
        assert!(refused.text().contains("another site"), "{}", refused.text());
    }
    assert_eq!(server.get("/v1/keys/k").text(), "v");
    // A page of this server, and a program.
    server.send("POST", "/clear", &[("origin", "http://localhost")], b"").has(200);
    server.send("POST", "/clear", &[], b"").has(200);
    // A form cannot be JSON.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    server.send("POST", "/put", &form, br#"{"key":"k","value":1}"#).has(422);
    server.send("POST", "/v1/batch", &form, br#"{"operations":[]}"#).has(400);
}

#[test]
fn a_page_whose_name_leads_to_this_machine_reaches_nothing() {
    let ask = |server: &Running, host: &str, token: &str| {
        let mut client = server.client();
        let head = format!(
            "POST /clear HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\n{token}\
             content-length: 0\r\n\r\n"
        );
        client.raw(head.as_bytes());
        client.answer("POST")
    };
    let server = Running::new();
    let refused = ask(&server, "evil.example:8000", "").has(403);
    assert!(refused.text().contains("localhost"), "{}", refused.text());
    for host in ["localhost:8000", "127.0.0.1:8000", "[::1]:8000"] {
        ask(&server, host, "").has(200);
    }
    // A page does not know the token.
    let server = Running::with(ServerOptions::new().token("secret"));
    ask(&server, "db.example", "x-api-key: secret\r\n").has(200);
    ask(&server, "evil.example", "").has(401);
}

/// The browser takes such a page for one of the server's own.
#[test]
fn a_page_whose_name_leads_to_a_server_on_all_addresses_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), small()).unwrap();
    let server = Server::bind(db, ServerOptions::new().address("0.0.0.0", 0)).unwrap();
    let (port, stop) = (server.address().port(), server.stop_handle());
    let running = std::thread::spawn(move || server.run());
    for (path, host, status) in [
        ("/clear", "evil.example", 403),
        ("/v1/stop", "evil.example", 403),
        ("/clear", "localhost", 200),
    ] {
        let mut client = Client::over(TcpStream::connect(("127.0.0.1", port)).unwrap());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\norigin: http://{host}:{port}\r\n\
             sec-fetch-site: same-origin\r\ncontent-length: 0\r\n\r\n"
        );
        client.raw(head.as_bytes());
        client.answer("POST").has(status);
    }
    stop.stop();
    running.join().unwrap().unwrap();
}

/// A proxy may go by the length, and take what follows for a part of the body.
#[test]
fn a_connection_ends_behind_a_request_with_two_lengths() {
    let server = Running::new();
    let mut client = server.client();
    let body = "1\r\nv\r\n0\r\n\r\n";
    let next = "DELETE /v1/keys/k HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let head = format!(
        "PUT /v1/keys/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\
         transfer-encoding: chunked\r\n\r\n{body}{next}",
        body.len() + next.len()
    );
    client.raw(head.as_bytes());
    client.answer("PUT").has(204);
    assert!(client.is_closed());
    assert_eq!(server.get("/v1/keys/k").text(), "v");
}

#[test]
fn pages_may_not_be_framed_or_load_anything() {
    let server = Running::new();
    for path in ["/docs", "/redoc", "/dashboard"] {
        let page = server.get(path).has(200);
        assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
        assert_eq!(page.header("x-frame-options"), Some("DENY"));
    }
}

#[test]
fn a_server_speaks_tls() {
    let server = Running::with(ServerOptions::new().tls(CERTIFICATE, KEY).token("secret"));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(server.address).unwrap();
    let mut client = Client::over(StreamOwned::new(session, stream));
    let token = [("authorization", "Bearer secret")];
    client.send("PUT", "/v1/keys/k", &token, b"private").has(204);
    assert_eq!(client.send("GET", "/v1/keys/k", &token, b"").text(), "private");
    // A client that speaks no TLS gets nothing, and does no harm.
    let mut plain = server.client();
    plain.begin("GET", "/health", &[], 0);
    assert!(plain.line().is_empty() || !plain.line().starts_with("HTTP"));
    assert_eq!(client.send("GET", "/v1/keys/k", &token, b"").text(), "private");
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused() {
    let pairs = [(&b""[..], KEY), (CERTIFICATE, b""), (CERTIFICATE, CERTIFICATE), (KEY, KEY)];
    for (certificate, key) in pairs {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), small()).unwrap();
        let options = ServerOptions::new().address("127.0.0.1", 0).tls(certificate, key);
        let error = Server::bind(db, options).unwrap_err();
        assert!(matches!(error, ServerError::Tls { .. }), "{error}");
    }
}

#[test]
fn options_show_no_secret() {
    let options = ServerOptions::new().token("secret").tls(CERTIFICATE, KEY);
    let shown = format!("{options:?}");
    assert!(!shown.contains("secret") && !shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn a_proxy_on_the_same_machine_does_not_make_its_clients_local() {
    let server = Running::new();
    let headers = ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"];
    for header in headers {
        for path in ["/v1/stop", "/v1/promote"] {
            server.send("POST", path, &[(header, "192.0.2.1")], b"").has(403);
        }
    }
    // Without a proxy, it is only no follower.
    server.send("POST", "/v1/promote", &[], b"").has(409);
    server.send("POST", "/v1/stop", &[], b"").has(202);
    drop(server.ended());
    let server = Running::with(ServerOptions::new().remote_stop(true));
    server.send("POST", "/v1/stop", &[("via", "1.1 proxy")], b"").has(202);
    drop(server.ended());
}
