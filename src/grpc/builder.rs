//! Configures and builds a caller.

use std::fmt;
use std::future::poll_fn;
use std::time::Duration;

use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Bytes, Service, StdError, http};
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use tonic::{Request, Status};

use super::call::Plan;
use super::caller::Caller;
use super::error::CallError;
use super::method::{MethodConfig, VTable};
use super::target::{Interceptor, Line};
use super::transport::Transport;
use crate::io::{Driver, DriverError};
use crate::pool::worker_pool::WorkerPool;
use crate::retry::RetryPolicy;
use crate::sync::{Arc, Mutex};
use crate::time::deadline::Deadline;

/// Calls in flight unless set: what servers commonly grant one connection.
const DEFAULT_IN_FLIGHT: usize = 100;
/// The time for a call unless set.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages of a stream that wait for their reader unless set.
const DEFAULT_STREAM_BUFFER: usize = 16;
/// The most that may be set.
const MAX_STREAM_BUFFER: usize = 1 << 20;

/// Told of errors that no thread waits for.
pub(super) type ErrorHook = Arc<dyn Fn(CallError) + Send + Sync>;

/// Makes a transport inside the runtime of the I/O thread.
type MakeTransport = Box<dyn FnOnce() -> Transport + Send>;

/// Configures a caller. From [`Caller::builder`] or [`Caller::over`]. Setters only store;
/// [`build`](Self::build) and [`connect`](Self::connect) check.
#[must_use = "a builder does nothing until `build` or `connect` is called"]
pub struct CallerBuilder {
    source: Source,
    max_in_flight: usize,
    timeout: Duration,
    policy: RetryPolicy<Status>,
    methods: Vec<(String, MethodConfig)>,
    interceptors: Vec<Interceptor>,
    overrides: MethodConfig,
    stream_buffer: usize,
    label: Option<Arc<str>>,
    on_error: Option<ErrorHook>,
}

/// What the transport is made of.
enum Source {
    Endpoint(Box<Endpoint>),
    /// The lock lets the builder be shared; it is never taken.
    Service(Mutex<MakeTransport>),
}

/// The reason why a caller was not built. Its text begins with the setting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallerError {
    /// The limit of calls in flight is zero or too high.
    #[error("max_in_flight: {0}")]
    MaxInFlight(#[source] DriverError),
    /// The operating system refused to start the I/O thread, or what it needs.
    #[error(transparent)]
    IoThread(DriverError),
    /// No connection can be made to such an address.
    #[error("endpoint: `{uri}` {problem}")]
    #[non_exhaustive]
    Endpoint {
        /// The address.
        uri: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The name is neither that of a method nor that of a service.
    #[error("method: `{name}` is neither `/package.Service/Method` nor `/package.Service/`")]
    #[non_exhaustive]
    Method {
        /// The name.
        name: String,
    },
    /// A stream needs room for one message at least, and at most for 1,048,576.
    #[error("stream_buffer: {requested} is not between 1 and {limit}")]
    #[non_exhaustive]
    StreamBuffer {
        /// The number asked for.
        requested: usize,
        /// The largest number allowed.
        limit: usize,
    },
    /// There is no connection; only [`CallerBuilder::connect`] says so.
    #[error("endpoint: {0}")]
    Connect(#[source] CallError),
}

impl CallerBuilder {
    fn new(source: Source) -> Self {
        Self {
            source,
            max_in_flight: DEFAULT_IN_FLIGHT,
            timeout: DEFAULT_TIMEOUT,
            policy: RetryPolicy::exponential(),
            methods: Vec::new(),
            interceptors: Vec::new(),
            overrides: MethodConfig::new(),
            stream_buffer: DEFAULT_STREAM_BUFFER,
            label: None,
            on_error: None,
        }
    }

    /// Sets how many calls may be in flight, 1 to 1,048,576. Calls that wait for their next attempt count. *Default: 100*.
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.max_in_flight = calls;
        self
    }

    /// Sets the time for a call, all attempts and delays together, from the moment it has its slot. The server is told
    /// what is left of it. `Duration::MAX` means forever. *Default: 30 seconds*.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets when a failed attempt is followed by another. *Default: [`RetryPolicy::exponential`]*.
    ///
    /// A policy that does not say which errors are worth it gets the usual answer:
    /// - `UNAVAILABLE` and `ABORTED`;
    /// - `RESOURCE_EXHAUSTED`, unless it is about the size of a message or of metadata;
    /// - `DEADLINE_EXCEEDED` of calls that are [idempotent](Caller::idempotent), or whose request was not sent in time.
    ///
    /// The server's `grpc-retry-pushback-ms` counts in any case, and so does its `google.rpc.RetryInfo`. A wrong
    /// certificate or address is never worth another attempt. The deadline of the policy, if it is earlier than the
    /// caller's timeout, takes its place. The policy's attempt deadline is the time for one attempt.
    ///
    /// What the policy was given to judge errors by is called on the I/O thread, so it must not block. Its panic ends the
    /// call.
    pub fn retry(mut self, policy: RetryPolicy<Status>) -> Self {
        self.policy = policy;
        self
    }

    /// Sets what differs for one method, `/package.Service/Method`, or for all methods of a service, `/package.Service/`.
    /// A method comes before its service, and of two settings for the same name the later one counts.
    ///
    /// The name is compared with the path of the first request that a call makes. Until that request is made, the caller's
    /// own timeout applies.
    pub fn method(mut self, name: impl Into<String>, config: MethodConfig) -> Self {
        self.methods.push((name.into(), config));
        self
    }

    /// Adds a closure that edits each request before it is sent, or refuses it: adds a token, say. It sees what the request
    /// and the caller have set. Interceptors run in the order in which they were added, for each attempt anew.
    ///
    /// It runs on the I/O thread, so it must not block; a token that must be awaited is awaited in the closure of the call.
    /// An error is that of the attempt. A panic ends the call.
    pub fn intercept(mut self, f: impl Fn(Request<()>) -> Result<Request<()>, Status> + Send + Sync + 'static) -> Self {
        self.interceptors.push(Arc::new(f));
        self
    }

    /// Lets all calls wait for a connection; see [`Caller::wait_for_ready`].
    pub fn wait_for_ready(mut self) -> Self {
        self.overrides.waits_for_ready = true;
        self
    }

    /// Sets how many messages of a [stream](Caller::stream) wait for their reader, 1 to 1,048,576. *Default: 16*.
    pub fn stream_buffer(mut self, messages: usize) -> Self {
        self.stream_buffer = messages;
        self
    }

    /// Sets the label of the calls that observers see. *Default: the endpoint's address*, or `grpc` over a service.
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Sets what is told, on a worker, of each [`notify`](Caller::notify) that failed. A panic of `f` is one of the call.
    ///
    /// `f` may notify again. An error of that is told too, up to eight such errors in a row. After that an error counts as
    /// a failed task, and `f` is not told: otherwise a target that is down would keep the pool busy forever.
    pub fn on_error(mut self, f: impl Fn(CallError) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(f));
        self
    }

    /// Builds a caller whose calls are tasks of `pool`. Does not connect: the first call does, and any later one that finds
    /// the connection broken. Does not block.
    ///
    /// # Errors
    ///
    /// [`CallerError`], which names the setting, or says that the I/O thread could not be started.
    pub fn build(self, pool: &WorkerPool) -> Result<Caller, CallerError> {
        self.assemble(pool, |source, driver| {
            let _runtime = driver.io().runtime().enter();
            Ok(match source {
                Source::Endpoint(endpoint) => Transport::Channel(endpoint.connect_lazy()),
                Source::Service(make) => make.into_inner()(),
            })
        })
    }

    /// Builds a caller as [`build`](Self::build) does, and connects first, so that a wrong address or certificate is found
    /// at the start. Blocks until there is a connection, for the [timeout](Self::timeout) at most. On a worker this holds
    /// the worker. A connection that is lost later is made anew.
    ///
    /// Over a service it blocks until the service says that it is ready. A channel that connects lazily always says so.
    ///
    /// # Errors
    ///
    /// [`CallerError`]: as `build`, or [`CallerError::Connect`].
    #[track_caller]
    pub fn connect(self, pool: &WorkerPool) -> Result<Caller, CallerError> {
        let deadline = Deadline::after(self.timeout);
        self.assemble(pool, |source, driver| {
            let connecting: BoxFuture<Transport, StdError> = match source {
                Source::Endpoint(endpoint) => {
                    Box::pin(async move { Ok(Transport::Channel(endpoint.connect().await?)) })
                }
                Source::Service(make) => Box::pin(async move {
                    let mut transport = make.into_inner()();
                    poll_fn(|context| transport.poll_ready(context)).await?;
                    Ok(transport)
                }),
            };
            match driver.io().block_on(connecting, deadline) {
                Ok(Ok(transport)) => Ok(transport),
                Ok(Err(error)) => Err(CallerError::Connect(CallError::no_connection(error))),
                Err(error) => Err(CallerError::Connect(CallError::no_connection(error.into()))),
            }
        })
    }

    fn assemble(
        self,
        pool: &WorkerPool,
        transport: impl FnOnce(Source, &Driver) -> Result<Transport, CallerError>,
    ) -> Result<Caller, CallerError> {
        let label = match &self.source {
            Source::Endpoint(endpoint) => {
                check(endpoint)?;
                endpoint.uri().to_string().into()
            }
            Source::Service(_) => "grpc".into(),
        };
        if !(1..=MAX_STREAM_BUFFER).contains(&self.stream_buffer) {
            return Err(CallerError::StreamBuffer { requested: self.stream_buffer, limit: MAX_STREAM_BUFFER });
        }
        let methods = VTable::new(self.policy, self.timeout, self.methods);
        let methods = methods.map_err(|name| CallerError::Method { name })?;
        let driver = Driver::new(pool, self.max_in_flight).map_err(|error| match error {
            DriverError::Start(_) => CallerError::IoThread(error),
            error => CallerError::MaxInFlight(error),
        })?;
        let driver = driver.label(self.label.unwrap_or(label));
        let transport = transport(self.source, &driver)?;
        let plan = Plan {
            line: Arc::new(Line { transport, methods, interceptors: self.interceptors }),
            overrides: self.overrides,
            carried: Arc::new(MetadataMap::new()),
            is_stream: false,
            closing: driver.engine().shutdown_token.clone(),
        };
        Ok(Caller { driver: Arc::new(driver), plan, on_error: self.on_error, stream_buffer: self.stream_buffer })
    }
}

/// # Building
impl Caller {
    /// Configures a caller of the server at `endpoint`.
    pub fn builder(endpoint: Endpoint) -> CallerBuilder {
        CallerBuilder::new(Source::Endpoint(Box::new(endpoint)))
    }

    /// Configures a caller over a channel that exists, or over a tower service around one: with layers, with a connector of
    /// its own, with several endpoints.
    ///
    /// The connection of a channel is driven by the runtime in which it was made. If that runtime stops, so do the calls.
    /// [`over_with`](Self::over_with) makes it in the runtime that drives the calls.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::task::{Context, Poll};
    /// use tonic::body::Body;
    /// use tonic::codegen::{Service, http};
    /// use workcrew::WorkerPool;
    /// use workcrew::grpc::Caller;
    ///
    /// /// A layer: counts the requests that go through it.
    /// #[derive(Clone)]
    /// struct Logged<S>(S);
    ///
    /// impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Logged<S> {
    ///     type Response = S::Response;
    ///     type Error = S::Error;
    ///     type Future = S::Future;
    ///     fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
    ///         self.0.poll_ready(context)
    ///     }
    ///     fn call(&mut self, request: http::Request<Body>) -> S::Future {
    ///         println!("{}", request.uri().path());
    ///         self.0.call(request)
    ///     }
    /// }
    ///
    /// use tonic::transport::{Channel, Endpoint};
    /// let replicas = ["http://10.0.0.1:50051", "http://10.0.0.2:50051"].map(Endpoint::from_static);
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let caller = Caller::over_with(move || Logged(Channel::balance_list(replicas.into_iter()))).build(&pool)?;
    /// assert_eq!(caller.in_flight(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn over<S, B>(service: S) -> CallerBuilder
    where
        S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<StdError>,
        S::Future: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        Self::over_with(|| service)
    }

    /// Configures a caller as [`over`](Self::over) does. `make` is called when the caller is built, inside the runtime of
    /// the pool's I/O thread, as [`Channel::balance_list`](tonic::transport::Channel::balance_list) and
    /// [`Endpoint::connect_lazy`] need it.
    pub fn over_with<S, B>(make: impl FnOnce() -> S + Send + 'static) -> CallerBuilder
    where
        S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<StdError>,
        S::Future: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        CallerBuilder::new(Source::Service(Mutex::new(Box::new(|| Transport::Service(Box::new(make()))))))
    }
}

/// An address without a scheme or a host is an error that no attempt mends. (A Unix socket has a stand-in for both.)
fn check(endpoint: &Endpoint) -> Result<(), CallerError> {
    let uri = endpoint.uri();
    let problem = match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => return Ok(()),
        (Some("http" | "https"), _) => "names no host",
        (Some(_), _) => "is neither `http` nor `https`",
        (None, _) => "has no scheme: it must begin with `http://` or `https://`",
    };
    Err(CallerError::Endpoint { uri: uri.to_string(), problem })
}

impl fmt::Debug for CallerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("CallerBuilder");
        if let Source::Endpoint(endpoint) = &self.source {
            debug.field("endpoint", endpoint);
        }
        debug
            .field("max_in_flight", &self.max_in_flight)
            .field("timeout", &self.timeout)
            .field("policy", &self.policy)
            .field("methods", &self.methods)
            .field("stream_buffer", &self.stream_buffer)
            .finish_non_exhaustive()
    }
}
