//! How to connect.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::ConnectOptions;

use super::connection::Connection;
use super::error::ConnectError;
use super::event::{Event, Listener};
use crate::pool::WorkerPool;

/// The time for an answer of the server unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Configures a connection. From [`Connection::builder`]. Setters only store; [`connect`](Self::connect) checks.
#[must_use = "a builder does nothing until `connect` is called"]
pub struct ConnectionBuilder {
    pub(super) servers: Vec<String>,
    pub(super) name: String,
    pub(super) login: Option<Login>,
    pub(super) tls: Tls,
    pub(super) timeout: Duration,
    /// Whether it goes on trying when there is no server at first.
    pub(super) waits_for_server: bool,
    pub(super) listener: Listener,
}

/// By what the server knows who it is.
pub(super) enum Login {
    Token(String),
    Password(String, String),
    /// The seed of a key.
    Nkey(String),
    /// A `.creds` file.
    Credentials(PathBuf),
}

/// How the connection is encrypted.
#[derive(Default)]
pub(super) struct Tls {
    pub(super) is_required: bool,
    /// Certificates of authorities, besides those of the system.
    pub(super) roots: Vec<PathBuf>,
    /// The certificate and the key by which the server knows who it is.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

impl ConnectionBuilder {
    pub(super) fn new(server: String) -> Self {
        Self {
            servers: vec![server],
            name: "workcrew".to_owned(),
            login: None,
            tls: Tls::default(),
            timeout: DEFAULT_TIMEOUT,
            waits_for_server: false,
            listener: Listener::default(),
        }
    }

    /// Another server of the same cluster.
    pub fn server(mut self, address: impl Into<String>) -> Self {
        self.servers.push(address.into());
        self
    }

    /// What the server's monitoring shows of the connection. Unless set, `workcrew`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Logs in by a token. The last of the ways to log in that is set counts.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.login = Some(Login::Token(token.into()));
        self
    }

    /// Logs in by a user's name and password.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some(Login::Password(user.into(), password.into()));
        self
    }

    /// Logs in by an `nkey`, given as its seed.
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.login = Some(Login::Nkey(seed.into()));
        self
    }

    /// Logs in by a `.creds` file.
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.login = Some(Login::Credentials(path.into()));
        self
    }

    /// Connects encrypted or not at all. (A server that asks for encryption gets it in any case.)
    pub fn require_tls(mut self) -> Self {
        self.tls.is_required = true;
        self
    }

    /// A file of certificates (PEM) to trust besides those of the system.
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.roots.push(path.into());
        self
    }

    /// The files (PEM) of the certificate and of the key by which the server knows who connects.
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls.client = Some((certificate.into(), key.into()));
        self
    }

    /// The time for each answer of the server: to connect, to store, to confirm. Unless set, 5 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Returns a connection even when there is no server yet, and goes on trying. Without this only a connection that was
    /// once there is made again, for ever.
    pub fn retry_on_first_connect(mut self) -> Self {
        self.waits_for_server = true;
        self
    }

    /// Is told of [`Event`]s, on the I/O thread: it must not block. Its panics are contained.
    pub fn observer(mut self, f: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.listener = Listener::new(f);
        self
    }

    /// Connects. Blocks until there is a connection. It lives on the I/O thread of `pool`, which it shares with whatever
    /// else that drives.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn connect(self, pool: &WorkerPool) -> Result<Connection, ConnectError> {
        Connection::open(self, pool)
    }

    /// The settings in the words of the client.
    pub(super) async fn into_options(self) -> Result<ConnectOptions, ConnectError> {
        let mut options = ConnectOptions::new()
            .name(self.name)
            .connection_timeout(self.timeout)
            .request_timeout(Some(self.timeout))
            .require_tls(self.tls.is_required);
        if self.waits_for_server {
            options = options.retry_on_initial_connect();
        }
        for roots in self.tls.roots {
            options = options.add_root_certificates(roots);
        }
        if let Some((certificate, key)) = self.tls.client {
            options = options.add_client_certificate(certificate, key);
        }
        Ok(match self.login {
            None => options,
            Some(Login::Token(token)) => options.token(token),
            Some(Login::Password(user, password)) => options.user_and_password(user, password),
            Some(Login::Nkey(seed)) => options.nkey(seed),
            Some(Login::Credentials(path)) => {
                options.credentials_file(path).await.map_err(ConnectError::Credentials)?
            }
        })
    }
}

impl fmt::Debug for ConnectionBuilder {
    /// Leaves out what is secret; addresses may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionBuilder")
            .field("name", &self.name)
            .field("timeout", &self.timeout)
            .field("waits_for_server", &self.waits_for_server)
            .finish_non_exhaustive()
    }
}
