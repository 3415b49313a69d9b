//! TLS: the cryptography provider and the root certificates.

use crate::error::{Error, Result};
use crate::settings::Settings;
use std::sync::Arc;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// TLS configuration of the agents. Takes some milliseconds to read the certificates.
pub(crate) fn config(settings: &Settings) -> Result<TlsConfig> {
    let provider = provider()?;
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(provider))
        .root_certs(roots(settings)?)
        .build())
}

/// The system's certificates, or those that the settings name.
fn roots(settings: &Settings) -> Result<RootCerts> {
    let (file, folder) = (settings.certificate_file.as_deref(), settings.certificate_folder.as_deref());
    let named = file.is_some() || folder.is_some();
    let found = match named {
        true => rustls_native_certs::load_certs_from_paths(file, folder),
        false => rustls_native_certs::load_native_certs(),
    };
    // errors count only if no certificate was found: one damaged file must not disable the others
    if found.certs.is_empty() {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let place = [file, folder].into_iter().flatten().map(|path| path.display().to_string()).collect::<Vec<_>>();
        let place = if named { place.join(", ") } else { "the system's store".into() };
        let reasons = if reasons.is_empty() { "no certificates".into() } else { reasons.join(", ") };
        return Err(Error::Certificates { message: format!("{place}: {reasons}") });
    }
    Ok(found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).into())
}

/// Graviola's provider. It panics on a processor without the features it needs, so they are checked first.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn provider() -> Result<rustls::crypto::CryptoProvider> {
    match missing(needed()) {
        None => Ok(rustls_graviola::default_provider()),
        Some(missing) => Err(Error::NoTls { missing }),
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn provider() -> Result<rustls::crypto::CryptoProvider> {
    Err(Error::NoTls { missing: missing([("x86-64 or AArch64", false)]).unwrap_or_default() })
}

/// CPU features that Graviola asserts, and whether they are present.
#[cfg(target_arch = "x86_64")]
fn needed() -> [(&'static str, bool); 6] {
    use std::arch::is_x86_feature_detected as has;
    [
        ("aes", has!("aes")),
        ("pclmulqdq", has!("pclmulqdq")),
        ("bmi1", has!("bmi1")),
        ("adx", has!("adx")),
        ("avx", has!("avx")),
        ("avx2", has!("avx2")),
    ]
}

/// CPU features that Graviola asserts, and whether they are present.
#[cfg(target_arch = "aarch64")]
fn needed() -> [(&'static str, bool); 4] {
    use std::arch::is_aarch64_feature_detected as has;
    [("neon", has!("neon")), ("aes", has!("aes")), ("pmull", has!("pmull")), ("sha2", has!("sha2"))]
}

/// Names of the missing features.
fn missing<const N: usize>(features: [(&'static str, bool); N]) -> Option<String> {
    let missing: Vec<&str> = features.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(missing([("aes", true)]), None);
        let missing = missing([("aes", true), ("adx", false), ("avx2", false)]).unwrap();
        let error = Error::NoTls { missing }.to_string();
        assert!(
            error.contains("adx, avx2") && error.contains("HF_ENDPOINT") && error.contains("hf download"),
            "{error}"
        );
    }

    #[test]
    fn certificates_are_those_that_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(folder.path());
        for (name, content) in [("missing.pem", None), ("empty.pem", Some(""))] {
            let file = folder.path().join(name);
            if let Some(content) = content {
                std::fs::write(&file, content).unwrap();
            }
            settings.certificate_file = Some(file);
            let error = roots(&settings).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("SSL_CERT_FILE"), "{error}");
        }
    }
}
