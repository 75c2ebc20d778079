//! HTTPS.

use bitcask::Position;
use bitcask::client::{Client, ClientError};
use bitcask::server::ServerOptions;

use crate::support::{Running, prompt};

const CERTIFICATE: &[u8] = include_bytes!("../server/fixtures/cert.pem");
const KEY: &[u8] = include_bytes!("../server/fixtures/key.pem");

#[test]
fn a_certificate_that_is_known_is_accepted_and_no_other() {
    let server = Running::with(ServerOptions::new().tls(CERTIFICATE, KEY).token("secret"));
    let options = || prompt(&server.url).token("secret");
    let client = Client::new(options().ca_certificates(CERTIFICATE)).unwrap();
    client.put("k", "private").unwrap();
    assert_eq!(client.get("k").unwrap().unwrap(), "private");
    assert_eq!(client.list_keys().unwrap().len(), 1);
    assert_eq!(client.changes(Position::START).recv().unwrap().unwrap().key, "k");

    // The system does not know the certificate, and a plain connection is none.
    let plain = server.url.replace("https", "http");
    for client in [Client::new(options()), Client::new(options().url(plain))] {
        let error = client.unwrap().get("k").unwrap_err();
        assert!(matches!(error, ClientError::Connection { .. }), "{error:?}");
    }
}
