//! Files with certificates and keys, and what rustls makes of them.
//!
//! Owns: reading and checking. Flow: a keyspace's wish (`routing::tls`) -> files -> a `Loaded` configuration, or a
//! `FileError` that names the setting, the file and what is wrong. `shoal check`, the start and every reload go this way,
//! so what one of them takes the others take.
//!
//! Must stay true: nothing of a key's content is ever in an error; a certificate and a key that do not belong together are
//! refused here, not at the first handshake.

use crate::limits::TLS_FILE_BYTES_MAX;
use crate::net::tls_certificate::expiry;
use crate::net::tls_verify::Lenient;
use crate::routing::tls::{ClientAuth, ClientTls, MinVersion, ServerTls, Verify};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// The setting that names it.
    pub setting: &'static str,
    /// What is wrong; names the file.
    pub text: String,
}

/// A configuration, and when our own certificate in it expires (seconds since 1970; None: there is none, or unknown).
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// For rustls.
    pub config: Arc<C>,
    /// See above.
    pub expires: Option<u64>,
}

/// Reads what connections of clients need.
pub fn of_clients(wish: &ClientTls) -> Result<Loaded<ServerConfig>, FileError> {
    let provider = Arc::new(ring::default_provider());
    let (chain, key) = identity(&wish.cert, &wish.key)?;
    let expires = chain.first().and_then(|first| expiry(first));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(wish.min_version))
        .map_err(|error| refused("min_version", &error))?;
    let builder = match (&wish.client_ca, wish.client_auth) {
        (Some(ca), auth @ (ClientAuth::WhoWants | ClientAuth::Everybody)) => {
            let roots = Arc::new(authorities("client_ca", ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = match auth {
                ClientAuth::Everybody => verifier,
                ClientAuth::WhoWants | ClientAuth::Nobody => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|error| FileError {
                setting: "client_ca",
                text: format!("{ca}: {error}"),
            })?;
            builder.with_client_cert_verifier(verifier)
        }
        // A wish for certificates without authorities is refused when the topology is built.
        (_, ClientAuth::Nobody | ClientAuth::WhoWants | ClientAuth::Everybody) => {
            builder.with_no_client_auth()
        }
    };
    let config = builder
        .with_single_cert(chain, key)
        .map_err(|error| mismatch(&wish.key, &wish.cert, &error))?;
    Ok(Loaded {
        config: Arc::new(config),
        expires,
    })
}

/// Reads what connections to shards need.
pub fn of_servers(wish: &ServerTls) -> Result<Loaded<ClientConfig>, FileError> {
    let provider = Arc::new(ring::default_provider());
    if let Some(name) = &wish.server_name {
        server_name(name).map_err(|text| FileError {
            setting: "server_name",
            text,
        })?;
    }
    let roots = match &wish.ca {
        Some(ca) => authorities("ca", ca)?,
        None => RootCertStore::empty(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(wish.min_version))
        .map_err(|error| refused("min_version", &error))?;
    let lenient = |roots| Arc::new(Lenient::new(Arc::clone(&provider), roots));
    let builder = match wish.verify {
        Verify::Full => builder.with_root_certificates(roots),
        Verify::Authority => builder
            .dangerous()
            .with_custom_certificate_verifier(lenient(Some(roots))),
        Verify::Nothing => builder
            .dangerous()
            .with_custom_certificate_verifier(lenient(None)),
    };
    let Some((cert, key_file)) = &wish.identity else {
        return Ok(Loaded {
            config: Arc::new(builder.with_no_client_auth()),
            expires: None,
        });
    };
    let (chain, key) = identity(cert, key_file)?;
    let expires = chain.first().and_then(|first| expiry(first));
    let config = builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| mismatch(key_file, cert, &error))?;
    Ok(Loaded {
        config: Arc::new(config),
        expires,
    })
}

/// A name or address as certificates have them.
pub fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_string())
        .map_err(|_| format!("\"{host}\" is neither a host name nor an address"))
}

fn versions(min: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match min {
        MinVersion::Tls12 => &ALL,
        MinVersion::Tls13 => &ALL[..1],
    }
}

fn refused(setting: &'static str, error: &rustls::Error) -> FileError {
    FileError {
        setting,
        text: error.to_string(),
    }
}

fn mismatch(key: &str, cert: &str, error: &rustls::Error) -> FileError {
    let text = match error {
        rustls::Error::InconsistentKeys(_) => format!("{key} is not the key of {cert}"),
        other => format!("{key} cannot be used with {cert}: {other}"),
    };
    FileError {
        setting: "key",
        text,
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(cert: &str, key: &str) -> Result<Identity, FileError> {
    let chain = certificates("cert", cert)?;
    let bytes = read("key", key)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let is_encrypted = bytes.windows(9).any(|word| word == b"ENCRYPTED");
        let why = if is_encrypted {
            "its private key is encrypted: store it without a passphrase, readable by shoal's user only"
        } else {
            "there is no private key in it (PEM)"
        };
        FileError {
            setting: "key",
            text: format!("{key}: {why}"),
        }
    })?;
    Ok((chain, key))
}

fn authorities(setting: &'static str, file: &str) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    // Bundles of systems have a few that no library takes.
    let (added, _) = roots.add_parsable_certificates(certificates(setting, file)?);
    if added == 0 {
        return Err(FileError {
            setting,
            text: format!("{file}: no certificate in it can be used as an authority"),
        });
    }
    Ok(roots)
}

fn certificates(
    setting: &'static str,
    file: &str,
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = read(setting, file)?;
    let broken = |text: String| FileError { setting, text };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| broken(format!("{file}: not PEM: {error}")))?;
    if found.is_empty() {
        return Err(broken(format!(
            "{file}: there is no certificate in it (PEM)"
        )));
    }
    Ok(found)
}

fn read(setting: &'static str, file: &str) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let read = File::open(file)
        .and_then(|opened| {
            opened
                .take(TLS_FILE_BYTES_MAX as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(|error| format!("cannot read {file}: {error}"));
    let text = match read {
        Ok(count) if count <= TLS_FILE_BYTES_MAX => return Ok(bytes),
        Ok(_) => format!("{file} is longer than {TLS_FILE_BYTES_MAX} bytes"),
        Err(text) => text,
    };
    Err(FileError { setting, text })
}
