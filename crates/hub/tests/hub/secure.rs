//! TLS with a certificate for `localhost` of a test authority, whose private key was deleted.

#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]

use crate::server::{Fault, Repo, Server};
use crate::{Place, assert_whole, message};
use phi3_hub::{Error, Token};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;

/// A TLS hub, and settings that trust it; `None`, with a note, on a processor without the features that TLS needs.
fn secure(repo: &Repo) -> Option<Place> {
    let certificate =
        CertificateDer::from_pem_slice(include_bytes!("certificates/localhost.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("certificates/key.pem")).expect("a key");
    let mut here = Place::new(Vec::new());
    here.settings.endpoint = "https://127.0.0.1:1".into();
    if let Err(error @ Error::NoTls { .. }) = here.get("a/b") {
        println!("skipped: {error}");
        return None;
    }
    let provider = Arc::new(rustls_graviola::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![certificate], key);
    let mut place = Place::of(Server::new(vec![repo.clone()], Some(Arc::new(config.expect("a pair")))));
    let authority = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hub/certificates/authority.pem");
    place.settings.certificate_file = Some(authority);
    Some(place)
}

#[test]
fn files_come_through_tls_where_the_authority_is_known() {
    let repo = Repo::published("a/b", 500_000);
    let Some(mut place) = secure(&repo) else { return };
    place.settings.token = Token::new("hf_secret", "HF_TOKEN").unwrap();
    place.server.fault("/store/", 1, Fault::Cut(100_000));
    assert_whole(&place.get("a/b").unwrap(), &repo);
    let requests = place.server.requests();
    assert!(requests.iter().all(|request| request.at_store != request.headers.contains_key("authorization")));
}

#[test]
fn unknown_authorities_and_other_names_are_refused() {
    let repo = Repo::published("a/b", 1000);
    let Some(mut place) = secure(&repo) else { return };
    place.settings.endpoint = place.server.url.replace("localhost", "127.0.0.1");
    let name = place.get("a/b").unwrap_err();
    assert!(matches!(name, Error::Handshake { .. }), "{name}");
    place.settings.endpoint = place.server.url.clone();
    place.settings.certificate_file = None;
    place.settings.certificate_folder = Some(tempfile::tempdir().unwrap().path().join("none"));
    assert!(matches!(place.get("a/b"), Err(Error::Certificates { .. })));
    place.settings.certificate_folder = None;
    let unknown = place.get("a/b").unwrap_err();
    // on a machine without certificates, that error comes first
    assert!(matches!(unknown, Error::Handshake { .. } | Error::Certificates { .. }), "{unknown}");
    assert!(unknown.to_string().contains("SSL_CERT_FILE"), "{unknown}");
    assert!(place.server.requests().is_empty());
}

#[test]
fn nothing_leads_from_https_to_http() {
    let repo = Repo::published("a/b", 1000);
    let Some(place) = secure(&repo) else { return };
    let plain = Place::new(vec![repo.clone()]);
    for (at, path) in [("/api/", "/api/models/a/b/revision/main"), ("HEAD", "/a/b/resolve/main/config.json")] {
        place.server.heal();
        let location = format!("{}{path}", plain.server.url);
        place.server.fault(at, 100, Fault::Status(302, vec![("Location", location)]));
        let error = message(place.get("a/b"));
        assert!(error.contains("https to http://"), "{error}");
    }
    assert!(plain.server.requests().is_empty());
}
