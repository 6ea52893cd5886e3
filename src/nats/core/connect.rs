//! Configures and opens a connection.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::{ConnectOptions, ServerAddr};

use super::connection::Connection;
use super::dispatch::EventCallback;
use super::dispatch::EventDispatcher;
use super::tls::{Pem, Tls};
use crate::io::{BlockError, IoThread};
use crate::nats::check::{self, InvalidArgument};
use crate::nats::core::denied::Denials;
use crate::nats::core::inner::ConnectionInner;
use crate::nats::core::reconnect::ReconnectSettings;
use crate::nats::error::ConnectError;
use crate::nats::event::Event;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::{Arc, Mutex};
use crate::time::deadline::Deadline;

/// The default time for an answer of the server.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// The default time between two pings. A dead connection is found in 15 seconds.
const DEFAULT_PING_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest time between two pings.
const MIN_PING_INTERVAL: Duration = Duration::from_millis(10);
/// Longer times are cut to this, since the client's clock cannot hold any moment.
const MAX_PING_INTERVAL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How much longer than its timeout for each address a connect may take, so that the client's own,
/// more precise error comes first.
const LOOK_UP_GRACE: Duration = Duration::from_millis(500);
/// The default prefix of the subjects of answers.
const DEFAULT_INBOX_PREFIX: &str = "_INBOX";
/// How many jobs may wait for the store at once, over all threads that enqueue.
const MAX_UNCONFIRMED: usize = 1 << 16;

/// A builder of connections. Returned by [`Connection::builder`]. Setters only store, and
/// [`connect`](Self::connect) checks the settings.
#[must_use = "a builder does nothing until `connect` is called"]
pub struct ConnectionBuilder {
    pub(crate) servers: Vec<String>,
    pub(crate) name: String,
    pub(crate) login: Option<Login>,
    pub(crate) tls: Tls,
    pub(crate) timeout: Duration,
    /// Whether connecting continues if there is no server at first.
    pub(crate) waits_for_server: bool,
    pub(crate) callback: EventCallback,
    ping_interval: Duration,
    pub(crate) inbox_prefix: Option<String>,
    pub(crate) jetstream: JetStream,
    reconnect: ReconnectSettings,
}

/// Where requests to JetStream go.
#[derive(Clone)]
pub(crate) enum JetStream {
    /// `$JS.API`.
    Default,
    Domain(String),
    Prefix(String),
}

impl JetStream {
    /// Returns the prefix of the subjects of the API.
    pub(crate) fn api(&self) -> String {
        match self {
            Self::Default => "$JS.API".to_owned(),
            Self::Domain(domain) => format!("$JS.{domain}.API"),
            Self::Prefix(prefix) => prefix.clone(),
        }
    }
}

/// How the client logs in.
pub(crate) enum Login {
    Token(String),
    Password(String, String),
    /// The seed of a key.
    Nkey(String),
    /// A `.creds` file.
    CredentialsFile(PathBuf),
    /// The contents of a `.creds` file.
    Credentials(String),
}

impl ConnectionBuilder {
    pub(crate) fn new(server: String) -> Self {
        Self {
            servers: vec![server],
            name: "workcrew".to_owned(),
            login: None,
            tls: Tls::default(),
            timeout: DEFAULT_TIMEOUT,
            waits_for_server: false,
            callback: EventCallback::default(),
            ping_interval: DEFAULT_PING_INTERVAL,
            inbox_prefix: None,
            jetstream: JetStream::Default,
            reconnect: ReconnectSettings::default(),
        }
    }

    /// Adds another server of the same cluster.
    pub fn server(mut self, address: impl Into<String>) -> Self {
        self.servers.push(address.into());
        self
    }

    /// Sets the name that the server's monitoring shows. *Default: `workcrew`.*
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Logs in with a token. The last login method that is set counts.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.login = Some(Login::Token(token.into()));
        self
    }

    /// Logs in with a user name and a password.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some(Login::Password(user.into(), password.into()));
        self
    }

    /// Logs in with an `nkey`, given as its seed.
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.login = Some(Login::Nkey(seed.into()));
        self
    }

    /// Logs in with a `.creds` file.
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.login = Some(Login::CredentialsFile(path.into()));
        self
    }

    /// Logs in with credentials, given as the text of a `.creds` file.
    pub fn credentials(mut self, text: impl Into<String>) -> Self {
        self.login = Some(Login::Credentials(text.into()));
        self
    }

    /// Refuses connections without TLS. (A server that requires TLS gets it in any case.)
    pub fn require_tls(mut self) -> Self {
        self.tls.is_required = true;
        self
    }

    /// Starts TLS before the server's greeting, as `handshake_first` on the server requires.
    pub fn tls_first(mut self) -> Self {
        (self.tls.is_first, self.tls.is_required) = (true, true);
        self
    }

    /// Adds a file of certificates (PEM) of authorities to trust. *Default: those of the system,*
    /// which are not used once there are others.
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.roots.push(Pem::File(path.into()));
        self
    }

    /// Adds certificates of authorities to trust, given as text (PEM). Like
    /// [`root_certificates`](Self::root_certificates) otherwise.
    pub fn root_certificates_pem(mut self, pem: impl Into<String>) -> Self {
        self.tls.roots.push(Pem::Text(pem.into()));
        self
    }

    /// Sets the files (PEM) of this client's certificate and of its key.
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls.client = Some((Pem::File(certificate.into()), Pem::File(key.into())));
        self
    }

    /// Sets this client's certificate and its key, given as text (PEM).
    pub fn client_certificate_pem(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls.client = Some((Pem::Text(certificate.into()), Pem::Text(key.into())));
        self
    }

    /// Sets the timeout for each answer of the server: to connect (for each address), to store, to
    /// confirm. `Duration::MAX` waits forever; zero is refused. *Default: 5 seconds.*
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the time between two pings to the server; at least 10 ms. After three pings without an
    /// answer the connection counts as lost, and the client reconnects. *Default: 5 seconds.*
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval;
        self
    }

    /// Sets the prefix of the subjects of answers. A user without permission for `_INBOX` needs a
    /// prefix of its own. *Default: `_INBOX`.*
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox_prefix = Some(prefix.into());
        self
    }

    /// Uses the JetStream of this domain, for example behind a leaf node. The last call of this and
    /// [`jetstream_api_prefix`](Self::jetstream_api_prefix) counts.
    pub fn jetstream_domain(mut self, domain: impl Into<String>) -> Self {
        self.jetstream = JetStream::Domain(domain.into());
        self
    }

    /// Uses this prefix instead of `$JS.API` for requests to JetStream, as imports from another
    /// account may need.
    pub fn jetstream_api_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.jetstream = JetStream::Prefix(prefix.into());
        self
    }

    /// Sets when a broken connection is made again.
    pub fn reconnect(mut self, settings: ReconnectSettings) -> Self {
        self.reconnect = settings;
        self
    }

    /// Returns a connection even if there is no server yet, and keeps trying. *Default: only a
    /// connection that existed once is made again.*
    pub fn retry_on_first_connect(mut self) -> Self {
        self.waits_for_server = true;
        self
    }

    /// Sets a callback for [`Event`]s. It runs on the I/O thread and must not block. Its panics are
    /// caught.
    pub fn observer(mut self, f: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.callback = EventCallback::new(f);
        self
    }

    /// Connects. Blocks until there is a connection. It uses the I/O thread of `pool`, which it
    /// shares with other connections and drivers.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn connect(self, pool: &WorkerPool) -> Result<Connection, ConnectError> {
        Connection::open(self, pool)
    }

    /// Checks the settings before anything is sent.
    pub(crate) fn check(&self) -> Result<(), ConnectError> {
        for address in &self.servers {
            if address.is_empty() || address.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(InvalidArgument::new("address", "it is empty, or holds a blank").into());
            }
            let parsed = address.parse::<ServerAddr>();
            if !parsed.is_ok_and(|parsed| !parsed.host().is_empty() && ["nats", "tls"].contains(&parsed.scheme())) {
                let reason = "it is not of the form host:port, nats://host:port or tls://host:port";
                return Err(InvalidArgument::new("address", reason).into());
            }
        }
        check::text("name", &self.name)?;
        check::not_zero("timeout", self.timeout)?;
        self.reconnect.check()?;
        match &self.login {
            Some(Login::Token(text)) if text.is_empty() => {
                return Err(InvalidArgument::new("token", "it is empty").into());
            }
            Some(Login::Password(user, _)) if user.is_empty() => {
                return Err(InvalidArgument::new("user", "it is empty").into());
            }
            _ => {}
        }
        if self.ping_interval < MIN_PING_INTERVAL {
            return Err(InvalidArgument::new("ping_interval", "it is shorter than 10 ms").into());
        }
        if let Some(prefix) = &self.inbox_prefix {
            check::subject("inbox_prefix", prefix)?;
            check::group("inbox_prefix", prefix)?;
        }
        match &self.jetstream {
            JetStream::Default => {}
            JetStream::Domain(domain) => check::name("jetstream_domain", domain)?,
            JetStream::Prefix(prefix) => check::subject("jetstream_api_prefix", prefix)?,
        }
        if let Some(Login::Nkey(seed)) = &self.login {
            let is_seed = seed.len() == 58
                && seed.starts_with("SU")
                && seed.bytes().all(|byte| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte));
            if !is_seed {
                return Err(InvalidArgument::new("nkey", "it is not the seed of a user's key").into());
            }
        }
        Ok(())
    }

    /// Converts the settings into those of the client library.
    pub(crate) async fn into_options(self) -> Result<ConnectOptions, ConnectError> {
        let reconnect = self.reconnect;
        let mut options = ConnectOptions::new()
            .name(self.name)
            .connection_timeout(self.timeout)
            .request_timeout(Some(self.timeout))
            .ping_interval(self.ping_interval.min(MAX_PING_INTERVAL))
            .reconnect_delay_callback(move |attempt| reconnect.pause(attempt))
            .require_tls(self.tls.is_required);
        if let Some(attempts) = reconnect.max_attempts {
            options = options.max_reconnects(attempts);
        }
        if reconnect.ignores_discovered_servers {
            options = options.ignore_discovered_servers();
        }
        if reconnect.keeps_order {
            options = options.retain_servers_order();
        }
        if self.tls.is_first {
            options = options.tls_first();
        }
        if let Some(prefix) = self.inbox_prefix {
            options = options.custom_inbox_prefix(prefix);
        }
        if self.waits_for_server {
            options = options.retry_on_initial_connect();
        }
        if let Some(config) = self.tls.config()? {
            options = options.tls_client_config(config);
        }
        Ok(match self.login {
            None => options,
            Some(Login::Token(token)) => options.token(token),
            Some(Login::Password(user, password)) => options.user_and_password(user, password),
            Some(Login::Nkey(seed)) => options.nkey(seed),
            Some(Login::CredentialsFile(path)) => {
                options.credentials_file(path).await.map_err(ConnectError::Credentials)?
            }
            Some(Login::Credentials(text)) => options.credentials(&text).map_err(ConnectError::Credentials)?,
        })
    }
}

impl Connection {
    /// Configures a connection to the server at `address`: `nats://host:4222`, `tls://…`, or
    /// `host:port`.
    pub fn builder(address: impl Into<String>) -> ConnectionBuilder {
        ConnectionBuilder::new(address.into())
    }

    pub(crate) fn open(builder: ConnectionBuilder, pool: &WorkerPool) -> Result<Self, ConnectError> {
        builder.check()?;
        let io = IoThread::of(pool).map_err(ConnectError::Start)?;
        let (callback, timeout) = (builder.callback.clone(), builder.timeout);
        let listeners = Arc::new(Mutex::new(Vec::new()));
        let denials = Denials::default();
        let inbox = builder.inbox_prefix.clone().unwrap_or_else(|| DEFAULT_INBOX_PREFIX.to_owned());
        let dispatcher = EventDispatcher {
            callback: callback.clone(),
            listeners: Arc::clone(&listeners),
            denials: denials.clone(),
            inbox,
        };
        let jetstream = builder.jetstream.clone();
        let api = jetstream.api();
        // The client limits the time for each address, but not for the look-up of a name.
        let addresses = u32::try_from(builder.servers.len()).unwrap_or(u32::MAX);
        let longest = timeout.saturating_mul(addresses).saturating_add(LOOK_UP_GRACE);
        let connecting = async move {
            let servers = builder.servers.clone();
            let options = builder.into_options().await?.event_callback(move |event| {
                dispatcher.dispatch(event);
                std::future::ready(())
            });
            let client = options.connect(servers).await?;
            let context =
                ContextBuilder::new().timeout(timeout).max_ack_inflight(MAX_UNCONFIRMED).backpressure_on_inflight(true);
            let jetstream = match jetstream {
                JetStream::Default => context.build(client.clone()),
                JetStream::Domain(domain) => context.domain(domain).build(client.clone()),
                JetStream::Prefix(prefix) => context.api_prefix(prefix).build(client.clone()),
            };
            Ok::<_, ConnectError>((client, jetstream))
        };
        let (client, jetstream) = match io.block_on(connecting, Deadline::after(longest)) {
            Ok(connected) => connected?,
            Err(BlockError::Timeout) => return Err(ConnectError::Timeout),
            Err(BlockError::OnIoThread) => return Err(ConnectError::WouldDeadlock),
            Err(BlockError::Panicked(panic)) => panic.resume(),
        };
        let pool_inner = Arc::clone(pool.inner());
        Ok(Self {
            inner: Arc::new(ConnectionInner {
                client,
                jetstream,
                io,
                pool: pool_inner,
                timeout,
                callback,
                listeners,
                denials,
                api,
            }),
        })
    }
}

impl fmt::Debug for ConnectionBuilder {
    /// Omits secrets; addresses may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionBuilder")
            .field("name", &self.name)
            .field("timeout", &self.timeout)
            .field("waits_for_server", &self.waits_for_server)
            .finish_non_exhaustive()
    }
}
