//! The server itself.

use bitcask::MergeOptions;
use bitcask::client::{Client, ClientError};
use bitcask::server::ServerOptions;

use crate::fake::{Fake, answer};
use crate::support::{Running, prompt};

#[test]
fn a_server_says_how_it_is_and_what_it_has_done() {
    let server = Running::new();
    let client = server.client();
    assert!(client.ping());
    let health = client.health().unwrap();
    assert!(health.is_healthy());
    assert_eq!(health.version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    for round in 0..100_u8 {
        client.put("k", [round]).unwrap();
    }
    let stats = client.stats().unwrap();
    assert_eq!((stats.keys, stats.position), (1, server.db.position()));
    assert!(stats.dead_size > stats.live_size && stats.requests > 100);
    let report = client.merge_opt(&MergeOptions::new().force(true)).unwrap();
    assert_eq!(report.live_entries, 1);
    assert!(report.freed_size() > 0 && !report.cancelled);
    assert_eq!(client.merge().unwrap().segments_in, 0);
    let wrong = client.merge_opt(&MergeOptions::new().segments([99])).unwrap_err();
    assert!(matches!(wrong, ClientError::Server { status: 400, .. }), "{wrong:?}");
    let ids: Vec<_> = (0..2)
        .map(|_| {
            client.get("k").unwrap();
            client.last_request_id().unwrap()
        })
        .collect();
    let [one, other] = ids.as_slice() else { panic!() };
    assert_ne!(one, other);
    assert_eq!(client.clone().last_request_id(), None);
}

#[test]
fn a_server_that_is_unwell_still_answers() {
    let body = r#"{"status":"unhealthy","version":"0.1.0","service":"x"}"#;
    let fake = Fake::new([answer(503, "", body)]);
    let client = Client::new(prompt(&fake.url)).unwrap();
    assert!(!client.health().unwrap().is_healthy());
    assert!(!client.ping());
    assert_eq!(fake.requests().len(), 2);
}

#[test]
fn a_token_is_needed_and_a_server_can_be_stopped() {
    let mut server = Running::with(ServerOptions::new().token("secret"));
    let stranger = Client::new(prompt(&server.url).token("wrong")).unwrap();
    assert!(stranger.ping());
    for error in [stranger.get("k").unwrap_err(), stranger.stop_server().unwrap_err()] {
        assert!(matches!(error, ClientError::Server { status: 401, .. }), "{error:?}");
        assert!(!format!("{error:?}{error}").contains("wrong"));
    }
    let client = Client::new(prompt(&server.url).token("secret")).unwrap();
    assert_eq!(client.get("k").unwrap(), None);
    assert!(!format!("{client:?}").contains("secret"));
    client.stop_server().unwrap();
    server.wait();
}
