//! Single keys and batches on a real server.

use std::time::{Duration, SystemTime};

use bitcask::client::ClientError;
use bitcask::server::ServerOptions;
use bitcask::{Batch, Ttl, WriteOptions};

use crate::support::Running;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_key_can_be_any_bytes() {
    let server = Running::new();
    let client = server.client();
    let mut keys: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let odd =
        ["", "..", "...", "/", "//", "a/../b", "./", "%2F", "%", "a?b#c", "a+b", "a b", "\r\n"];
    keys.extend(odd.iter().map(|key| key.as_bytes().to_vec()));
    keys.push(vec![0xff; 15_000]);
    for (at, key) in keys.iter().enumerate() {
        let value = [key.as_slice(), &at.to_be_bytes()].concat();
        client.put(key, &value).unwrap();
        assert_eq!(server.db.get(key).unwrap().unwrap(), value, "{key:?}");
        assert_eq!(client.get(key).unwrap().unwrap(), value, "{key:?}");
        assert!(client.contains_key(key).unwrap());
    }
    let values = client.get_many(&keys).unwrap();
    assert!(values.iter().zip(&keys).all(|(value, key)| value.as_ref().unwrap().starts_with(key)));
    let mut listed = client.list_keys().unwrap();
    assert_eq!(listed.len(), server.db.keys().count());
    for key in &keys {
        client.delete(key).unwrap();
    }
    assert!(client.list_keys().unwrap().is_empty());
    listed.dedup();
    assert_eq!(listed.len(), keys.len() - 2, "the keys `/` and `%` are there twice");
    let long = client.get(vec![0xff; 40_000]).unwrap_err();
    assert!(matches!(long, ClientError::InvalidRequest { .. }), "{long:?}");
}

#[test]
fn a_value_can_be_empty_and_large() {
    let server = Running::with(ServerOptions::new().body_size_limit(9 << 20));
    let client = server.client();
    let large: Vec<u8> = (0..8 << 20).map(|at: u32| at.to_be_bytes()[3]).collect();
    for value in [&[][..], &large, &large[1..], &large[..300_000]] {
        client.put("k", value).unwrap();
        assert_eq!(client.get("k").unwrap().unwrap(), value);
    }
    let error = client.put("k", vec![0; 10 << 20]).unwrap_err();
    let ClientError::Server { status: 413, code, .. } = &error else { panic!("{error:?}") };
    assert_eq!(code.as_deref(), Some("too_large"));
    assert_eq!(error.request_id().map(str::to_owned), client.last_request_id());
    assert!(!error.may_have_taken_effect());
    assert_eq!(client.get("k").unwrap().unwrap(), large[..300_000]);
}

#[test]
fn lifetimes_are_those_of_an_embedded_store() {
    let server = Running::new();
    let client = server.client();
    assert_eq!(client.ttl("k").unwrap(), None);
    let options = WriteOptions::new();
    client.put_opt("k", "1", options.ttl(HOUR).durable(true)).unwrap();
    assert!(matches!(client.ttl("k").unwrap(), Some(Ttl::In(left)) if left <= HOUR));
    client.put_opt("k", "2", options.keep_ttl(true)).unwrap();
    assert!(matches!(client.ttl("k").unwrap(), Some(Ttl::In(_))));
    client.put_opt("k", "3", options.ttl(Duration::MAX).keep_ttl(true)).unwrap();
    assert!(matches!(server.db.ttl("k").unwrap(), Some(Ttl::In(_))));
    client.put_opt("k", "4", options.ttl(Duration::MAX)).unwrap();
    assert_eq!(client.ttl("k").unwrap(), Some(Ttl::Never));
    client.put_opt("k", "5", options.ttl(HOUR)).unwrap();
    client.put("k", "6").unwrap();
    assert_eq!(client.ttl("k").unwrap(), Some(Ttl::Never));
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    client.put_opt("k", "7", options.expires_at(noon)).unwrap();
    assert_eq!(server.db.expiry("k").unwrap(), Some(bitcask::Expiry::At(noon)));
    client.put_opt("k", "8", options.expires_at(SystemTime::UNIX_EPOCH)).unwrap();
    assert_eq!(client.get("k").unwrap(), None);
    client.put_opt("k", "9", options.ttl(Duration::ZERO)).unwrap();
    assert!(!client.contains_key("k").unwrap());

    assert!(!client.expire("k", HOUR).unwrap() && !client.persist("k").unwrap());
    client.put("k", "value").unwrap();
    assert!(client.expire("k", HOUR).unwrap());
    assert!(matches!(client.ttl("k").unwrap(), Some(Ttl::In(_))));
    assert!(client.persist("k").unwrap());
    assert_eq!(client.ttl("k").unwrap(), Some(Ttl::Never));
    assert_eq!(client.get("k").unwrap().unwrap(), "value");
}

#[test]
fn a_write_under_a_condition_is_made_once() {
    let server = Running::new();
    let client = server.client();
    assert!(client.put_if_absent("k", "1").unwrap());
    assert!(!client.put_if_absent("k", "2").unwrap());
    let (value, version) = client.get_versioned("k").unwrap().unwrap();
    assert_eq!((value, Some(version)), {
        let (value, version) = server.db.get_versioned("k").unwrap().unwrap();
        (value, Some(version))
    });
    let swap = |expected, new| client.compare_and_swap_versioned("k", expected, new).unwrap();
    assert!(swap(Some(version), Some(&b"2"[..])).is_ok());
    let error = swap(Some(version), Some(b"3")).unwrap_err();
    assert_eq!(error.current.as_deref(), Some(&b"2"[..]));
    assert!(error.version > Some(version));
    let error = swap(None, Some(b"3")).unwrap_err();
    assert_eq!(swap(None, None).unwrap_err(), error);
    assert!(swap(error.version, None).is_ok());
    assert!(swap(None, None).is_ok());
    let error = swap(Some(version), Some(b"3")).unwrap_err();
    assert_eq!((error.current, error.version), (None, None));

    let swap = |expected, new| client.compare_and_swap("k", expected, new).unwrap();
    assert!(swap(Some(b"1"), Some(b"2")).is_err());
    assert!(swap(None, Some(b"1")).is_ok());
    let error = swap(None, Some(b"2")).unwrap_err();
    assert_eq!(error.current.unwrap(), "1");
    assert!(swap(Some(b"1"), None).is_ok());
    assert!(!client.contains_key("k").unwrap());
}

#[test]
fn threads_that_share_a_client_lose_no_increment() {
    let server = Running::new();
    let client = server.client();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    loop {
                        let (value, version) = client.get_versioned("n").unwrap().unzip();
                        let old = value.map_or(0, |value| value.len());
                        let new = vec![b'|'; old + 1];
                        let swapped = client.compare_and_swap_versioned("n", version, Some(&new));
                        if swapped.unwrap().is_ok() {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert_eq!(client.get("n").unwrap().unwrap().len(), 100);
}

#[test]
fn a_batch_is_written_with_the_options_of_its_changes() {
    let server = Running::new();
    let client = server.client();
    client.put_opt("kept", "old", WriteOptions::new().ttl(HOUR)).unwrap();
    client.put("gone", "old").unwrap();
    let mut batch = Batch::new();
    batch.put("plain", b"\xff\x00").delete("gone").delete("never");
    batch.put_opt("kept", "new", WriteOptions::new().keep_ttl(true));
    batch.put_opt("long", "v", WriteOptions::new().ttl(Duration::MAX));
    batch.put("plain", "last");
    let minute = WriteOptions::new().ttl(Duration::from_secs(60)).durable(true);
    client.write_opt(&batch, minute).unwrap();
    assert_eq!(client.get("plain").unwrap().unwrap(), "last");
    assert!(matches!(client.ttl("plain").unwrap(), Some(Ttl::In(_))));
    assert_eq!(client.get("kept").unwrap().unwrap(), "new");
    assert_eq!(client.ttl("long").unwrap(), Some(Ttl::Never));
    assert_eq!(client.get("gone").unwrap(), None);
    let synced = server.db.stats().syncs;
    assert!(synced > 0);
    client.write(&Batch::new()).unwrap();
    let many: Batch = (0..10_001_u32).map(|key| (key.to_be_bytes(), "v")).collect();
    let error = client.write(&many).unwrap_err();
    assert!(!error.may_have_taken_effect(), "{error}");
}

#[test]
fn many_keys_are_read_with_as_many_requests_as_they_need() {
    let server = Running::new();
    let client = server.client();
    let large = vec![0xff; 7 << 20];
    for key in ["a", "b", "c"] {
        server.db.put(key, &large).unwrap();
    }
    let values = client.get_many(&["a", "x", "b", "c"]).unwrap();
    assert_eq!(values.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, true]);
    assert!(values.iter().flatten().all(|value| *value == large));
    assert_eq!(client.get_many::<&str>(&[]).unwrap(), []);
    let keys: Vec<_> = (0..10_500_u32).map(u32::to_be_bytes).collect();
    let batch: Batch = keys.iter().skip(9_000).map(|key| (key, key)).collect();
    server.db.write(&batch).unwrap();
    let values = client.get_many(&keys).unwrap();
    assert_eq!(values.len(), keys.len());
    assert_eq!(values.iter().flatten().count(), 1_500);
    assert_eq!(values[10_499].as_ref().unwrap(), &keys[10_499]);
}
