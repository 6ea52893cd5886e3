//! Reads and checks certificates, and makes the client's TLS settings of them.

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::PathBuf;

use async_nats::rustls::crypto::ring;
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::rustls::{ClientConfig, RootCertStore};

use crate::nats::error::ConnectError;

/// How the connection is encrypted.
#[derive(Default)]
pub(crate) struct Tls {
    pub(crate) is_required: bool,
    /// Whether TLS starts before the server's greeting.
    pub(crate) is_first: bool,
    /// Certificates of authorities. Empty: those of the system.
    pub(crate) roots: Vec<Pem>,
    /// The certificate and the key of this client.
    pub(crate) client: Option<(Pem, Pem)>,
}

/// The source of a text in PEM.
pub(crate) enum Pem {
    File(PathBuf),
    Text(String),
}

impl Pem {
    fn read(&self) -> Result<Vec<u8>, Error> {
        match self {
            Self::File(path) => fs::read(path),
            Self::Text(text) => Ok(text.clone().into_bytes()),
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let pem = self.read()?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let all = all.map_err(|error| Error::new(ErrorKind::InvalidData, error.to_string()))?;
        if all.is_empty() {
            return Err(Error::new(ErrorKind::InvalidData, "there is no certificate in it"));
        }
        Ok(all)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        let pem = self.read()?;
        // The parser's error may hold a part of the key.
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| Error::new(ErrorKind::InvalidData, "there is no key in it"))
    }
}

impl Tls {
    /// Returns the TLS settings; `None` if there are no certificates, so that the client's own
    /// settings serve.
    pub(crate) fn config(&self) -> Result<Option<ClientConfig>, ConnectError> {
        if self.roots.is_empty() && self.client.is_none() {
            return Ok(None);
        }
        let failed = |what| move |source| ConnectError::Certificate { what, source };
        let mut roots = RootCertStore::empty();
        for pem in &self.roots {
            for certificate in pem.certificates().map_err(failed("root certificate"))? {
                let added = roots.add(certificate);
                let unusable = |error: async_nats::rustls::Error| Error::new(ErrorKind::InvalidData, error.to_string());
                added.map_err(unusable).map_err(failed("root certificate"))?;
            }
        }
        if self.roots.is_empty() {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
        }
        // The provider is named because a program may contain two, and rustls panics if it has to
        // choose.
        let builder = ClientConfig::builder_with_provider(ring::default_provider().into());
        let wrong = |error: async_nats::rustls::Error| Error::new(ErrorKind::InvalidData, error.to_string());
        let builder = builder.with_safe_default_protocol_versions().map_err(wrong).map_err(failed("TLS version"))?;
        let builder = builder.with_root_certificates(roots);
        let Some((certificate, key)) = &self.client else { return Ok(Some(builder.with_no_client_auth())) };
        let certificates = certificate.certificates().map_err(failed("client certificate"))?;
        let key = key.key().map_err(failed("key of the client certificate"))?;
        let built = builder.with_client_auth_cert(certificates, key);
        built.map(Some).map_err(wrong).map_err(failed("client certificate"))
    }
}
