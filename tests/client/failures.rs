//! Servers that do not answer, or answer nonsense: what is repeated, what is not, and what the
//! errors say.

#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]

use std::net::TcpListener;
use std::time::Duration;

use bitcask::client::{Client, ClientError, ClientOptions};
use bitcask::{Batch, Version};

use crate::fake::{Fake, Reply, answer, refusal};
use crate::support::prompt;

const HOUR: Duration = Duration::from_secs(3600);

fn client(fake: &Fake) -> Client {
    Client::new(prompt(&fake.url)).unwrap()
}

fn value() -> Reply {
    answer(200, "etag: \"7\"\r\n", "value")
}

/// Returns an answer that ends in the middle of its body.
fn half() -> Reply {
    Reply::Bytes(b"HTTP/1.1 200 OK\r\nrequest-id: x\r\ncontent-length: 100\r\n\r\nhalf".to_vec())
}

#[test]
fn what_fails_in_passing_is_repeated_with_the_same_id() {
    let passing = [
        refusal(503, "busy"),
        refusal(429, "too_many_requests"),
        answer(502, "", "<html>"),
        answer(504, "", ""),
        Reply::Drop,
        half(),
    ];
    for failure in passing {
        let fake = Fake::new([failure.clone(), failure.clone(), value()]);
        let client = client(&fake);
        assert_eq!(client.get("k").unwrap().unwrap(), "value", "{failure:?}");
        let ids = fake.headers("x-request-id");
        assert_eq!(ids.len(), 3, "{failure:?}");
        assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(client.last_request_id().as_deref(), Some("fake"));
    }
}

#[test]
fn reads_and_plain_writes_are_repeated() {
    type Request = fn(&Client) -> Result<(), ClientError>;
    let page = r#"{"keys":[],"next":null}"#;
    let requests: [(Request, Reply); 6] = [
        (|client| client.put("k", "v"), answer(204, "", "")),
        (|client| client.delete("k").map(drop), answer(204, "", "")),
        (|client| client.contains_key("k").map(drop), answer(200, "", "")),
        (|client| client.list_keys().map(drop), answer(200, "", page)),
        (|client| client.list_keys().map(drop), answer(200, "", page)),
        (
            |client| client.get_many(&["a", "b"]).map(drop),
            answer(200, "", r#"{"values":[{"key":"a"},{"key":"b","value":"v"}]}"#),
        ),
    ];
    for (request, reply) in requests {
        let fake = Fake::new([Reply::Drop, refusal(503, "busy"), reply]);
        request(&client(&fake)).unwrap();
        assert_eq!(fake.requests().len(), 3, "{:?}", fake.requests());
    }
}

#[test]
fn batches_and_conditional_writes_are_never_repeated() {
    type Request = fn(&Client) -> Result<(), ClientError>;
    let requests: [Request; 5] = [
        |client| client.write(Batch::new().put("k", "v")),
        |client| client.put_if_absent("k", "v").map(drop),
        |client| {
            let version = Some(Version::from(7));
            client.compare_and_swap_versioned("k", version, Some(b"v")).map(drop)
        },
        |client| client.compare_and_swap_versioned("k", None, None).map(drop),
        |client| client.merge().map(drop),
    ];
    for request in requests {
        for failure in [Reply::Drop, refusal(503, "timed_out"), half()] {
            let fake = Fake::new([failure]);
            let error = request(&client(&fake)).unwrap_err();
            assert_eq!(fake.requests().len(), 1, "{error}");
            assert!(error.may_have_taken_effect(), "{error}");
            assert!(error.request_id().is_some());
        }
    }
}

#[test]
fn a_server_that_is_not_there_gets_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(prompt(&url)).unwrap();
    let error = client.write(Batch::new().put("k", "v")).unwrap_err();
    assert!(matches!(&error, ClientError::Connection { was_sent: false, .. }), "{error:?}");
    assert!(!error.may_have_taken_effect());
    assert!(error.to_string().contains(&url), "{error}");
    assert!(!client.ping());
}

#[test]
fn retries_are_counted() {
    for retries in [0, 1, 5] {
        let fake = Fake::new([refusal(503, "busy")]);
        let client = Client::new(prompt(&fake.url).retries(retries)).unwrap();
        let error = client.get("k").unwrap_err();
        assert_eq!(fake.requests().len(), retries + 1);
        let ClientError::Server { status, code, detail, request_id } = error else { panic!() };
        assert_eq!((status, code.as_deref(), detail.as_str()), (503, Some("busy"), "it is busy"));
        assert_eq!(request_id, "fake");
    }
}

#[test]
fn what_would_fail_again_is_not_repeated() {
    let lasting = [
        refusal(400, "invalid_request"),
        refusal(401, "unauthorized"),
        refusal(500, "corrupt"),
        refusal(503, "poisoned"),
        refusal(503, "timed_out"),
        refusal(507, "no_space"),
        // The address of something else, which must not get the token either.
        answer(302, "location: http://127.0.0.1:1/\r\n", ""),
        answer(404, "", "<html>no such page</html>"),
        answer(404, "", r#"{"detail":"Not Found","code":"not_found"}"#),
    ];
    for reply in lasting {
        let fake = Fake::new([reply.clone()]);
        let error = client(&fake).get("k").unwrap_err();
        assert!(matches!(error, ClientError::Server { .. }), "{reply:?}: {error:?}");
        assert_eq!(fake.requests().len(), 1, "{error}");
    }
    let fake = Fake::new([refusal(410, "history_gone")]);
    let error = client(&fake).changes(bitcask::Position::START).recv().unwrap_err();
    assert!(error.is_history_gone() && fake.requests().len() == 1, "{error}");
}

#[test]
fn an_answer_of_something_else_is_no_value() {
    let page = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_vec();
    let strange = [
        Reply::Bytes(page),
        answer(200, "", "no JSON"),
        answer(200, "", r#"{"keys":[{"key_base64":"?"}],"next":null}"#),
        answer(200, "", r#"{"keys":[{}],"next":null}"#),
    ];
    for reply in strange {
        let fake = Fake::new([reply]);
        let mut keys = client(&fake).keys();
        let error = keys.next().unwrap().unwrap_err();
        assert!(matches!(error, ClientError::InvalidAnswer { .. }), "{error:?}");
        assert!(keys.next().is_none() && fake.requests().len() == 1);
    }
    // A page that comes again and again.
    let again = r#"{"keys":[{"key":"k"}],"next":"/v1/keys?after=k"}"#;
    let fake = Fake::new([answer(200, "", again)]);
    let error = client(&fake).list_keys().unwrap_err();
    assert!(matches!(error, ClientError::InvalidAnswer { .. }), "{error:?}");
    let fake = Fake::new([answer(200, "", "no version")]);
    assert!(client(&fake).get_versioned("k").is_err());
    let fake = Fake::new([Reply::Bytes(b"+PONG\r\n".to_vec())]);
    let error = client(&fake).health().unwrap_err();
    assert!(matches!(error, ClientError::Connection { .. }), "{error:?}");
    let fake = Fake::new([answer(200, "", r#"{"values":[]}"#)]);
    assert!(client(&fake).get_many(&["a", "b"]).is_err());
}

#[test]
fn an_answer_that_is_too_large_is_not_read() {
    let fake = Fake::new([answer(200, "", &"x".repeat(101))]);
    let client = Client::new(prompt(&fake.url).answer_size_limit(100)).unwrap();
    let error = client.get("k").unwrap_err();
    assert!(error.to_string().contains("more than 100 bytes"), "{error}");
    let fake = Fake::new([answer(200, "", &"x".repeat(100))]);
    let client = Client::new(prompt(&fake.url).answer_size_limit(100)).unwrap();
    assert_eq!(client.get("k").unwrap().unwrap().len(), 100);
}

#[test]
fn a_server_that_hangs_is_not_asked_again() {
    let fake = Fake::new([Reply::Hang]);
    let options = prompt(&fake.url).timeout(Duration::from_millis(50));
    let client = Client::new(options).unwrap();
    for write in [false, true] {
        let result = if write { client.put("k", "v") } else { client.get("k").map(drop) };
        let error = result.unwrap_err();
        assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
        assert!(error.may_have_taken_effect() && error.request_id().is_some());
    }
    assert_eq!(fake.requests().len(), 2);
}

#[test]
fn after_several_failures_nothing_is_sent_for_a_while() {
    let fake = Fake::new([refusal(503, "busy")]);
    let options = prompt(&fake.url).retries(10).circuit_breaker(3, HOUR);
    let client = Client::new(options).unwrap();
    // The call that opens the circuit says what has happened.
    let error = client.get("k").unwrap_err();
    assert!(matches!(error, ClientError::Server { status: 503, .. }), "{error:?}");
    assert_eq!(fake.requests().len(), 3);
    // Clones share what is known of the server.
    for client in [client.clone(), client] {
        let error = client.get("k").unwrap_err();
        assert!(matches!(error, ClientError::CircuitOpen { .. }), "{error:?}");
        assert!(!error.may_have_taken_effect() && error.request_id().is_some());
    }
    assert_eq!(fake.requests().len(), 3);
}

#[test]
fn the_circuit_closes_when_the_server_answers_again() {
    let replies = [vec![Reply::Drop; 4], vec![value(), Reply::Drop, value()]].concat();
    let fake = Fake::new(replies);
    let options = prompt(&fake.url).retries(0).circuit_breaker(2, Duration::ZERO);
    let client = Client::new(options).unwrap();
    for _ in 0..4 {
        assert!(client.get("k").is_err());
    }
    assert!(client.get("k").is_ok());
    assert!(client.get("k").is_err());
    assert!(client.get("k").is_ok());
    assert_eq!(fake.requests().len(), 7);
}

#[test]
fn refusals_that_are_about_one_request_do_not_open_the_circuit() {
    for reply in [refusal(503, "poisoned"), refusal(500, "corrupt"), refusal(413, "too_large")] {
        let fake = Fake::new([reply]);
        let client = Client::new(prompt(&fake.url).circuit_breaker(1, HOUR)).unwrap();
        for _ in 0..3 {
            let error = client.put("k", "v").unwrap_err();
            assert!(matches!(error, ClientError::Server { .. }), "{error:?}");
        }
    }
}

#[test]
fn the_token_is_sent_and_a_broken_option_is_refused() {
    let fake = Fake::new([value()]);
    Client::new(prompt(&fake.url).token("secret")).unwrap().get("k").unwrap();
    assert_eq!(fake.headers("authorization"), [Some("Bearer secret".to_owned())]);
    for options in [
        ClientOptions::new().url("localhost"),
        ClientOptions::new().ca_certificates("no certificate"),
        ClientOptions::new().page_len(0),
    ] {
        let error = Client::new(options).unwrap_err();
        assert!(matches!(error, ClientError::InvalidClientOption { .. }), "{error:?}");
        assert_eq!(error.request_id(), None);
    }
}
