//! The builder of a caller.

use std::fmt;
use std::future::poll_fn;
use std::time::Duration;

use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Bytes, Service, StdError, http};
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use tonic::{Request, Status};

use super::call::CallConfig;
use super::caller::{Caller, ErrorHook};
use super::error::{CallError, CallerError};
use super::method::{MethodConfig, MethodTable};
use super::rate::TurnQueue;
use super::target::{CallerInner, Interceptor};
use super::transport::Transport;
use crate::io::{Driver, DriverError};
use crate::pool::worker_pool::WorkerPool;
use crate::priority::Priority;
use crate::retry::RetryPolicy;
use crate::sync::{Arc, Mutex};
use crate::time::deadline::Deadline;

/// The default limit of calls in flight. Servers commonly allow as many on one connection.
const DEFAULT_IN_FLIGHT: usize = 100;
/// The default time for a call.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// The default number of messages of a stream that are read ahead.
const DEFAULT_STREAM_BUFFER: usize = 16;
/// The largest number of messages of a stream that may be read ahead.
const MAX_STREAM_BUFFER: usize = 1 << 20;

/// A function that makes a transport. Called inside the runtime of the I/O thread.
type MakeTransport = Box<dyn FnOnce() -> Transport + Send>;

/// A builder of callers. Returned by [`Caller::builder`] and [`Caller::over`].
///
/// Setters only store; [`build`](Self::build) and [`connect`](Self::connect) check.
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
    /// `None`: no limit.
    rate: Option<(usize, Duration)>,
    label: Option<Arc<str>>,
    class: Priority,
    on_error: Option<ErrorHook>,
}

/// The source of the transport.
enum Source {
    /// A channel to this endpoint.
    Endpoint(Box<Endpoint>),
    /// A service of the user. The lock only makes the builder `Sync`, and is never taken.
    Service(Mutex<MakeTransport>),
}

impl CallerBuilder {
    /// Returns a builder with the defaults.
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
            rate: None,
            label: None,
            class: Priority::Normal,
            on_error: None,
        }
    }

    /// Sets how many calls may be in flight, 1 to 1,048,576. Calls that wait for their next attempt
    /// count. *Default: 100.*
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.max_in_flight = calls;
        self
    }

    /// Sets the time for a call, all attempts and delays together, from the moment it has its slot.
    /// The server receives the time that is left. `Duration::MAX` means forever. *Default: 30
    /// seconds*.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets when a failed attempt is followed by another. *Default: [`RetryPolicy::exponential`].*
    ///
    /// A policy without a function that classifies errors retries these:
    /// - `UNAVAILABLE` and `ABORTED`,
    /// - `RESOURCE_EXHAUSTED`, unless it is about the size of a message or of metadata,
    /// - `DEADLINE_EXCEEDED` of calls that are [idempotent](Caller::idempotent), or whose request
    ///   was not sent in time.
    ///
    /// The server's `grpc-retry-pushback-ms` and `google.rpc.RetryInfo` count with every policy. A
    /// wrong certificate or address is never retried. If the timeout of the policy is shorter than
    /// that of the caller, it applies instead. The policy's attempt timeout is the time for one
    /// attempt.
    ///
    /// The function that classifies errors is called on the I/O thread, so it must not block. A
    /// panic of the function ends the call.
    pub fn retry(mut self, policy: RetryPolicy<Status>) -> Self {
        self.policy = policy;
        self
    }

    /// Sets what differs for one method, `/package.Service/Method`, or for all methods of a
    /// service, `/package.Service/`. A method takes precedence over its service. If a name is set
    /// twice, the later setting counts.
    ///
    /// The name is compared with the path of the first request that a call makes. Until that
    /// request is made, the caller's own timeout applies.
    pub fn method(mut self, name: impl Into<String>, config: MethodConfig) -> Self {
        self.methods.push((name.into(), config));
        self
    }

    /// Adds a closure that edits each request before it is sent, or refuses it. For example, it
    /// adds a token. It sees the metadata that the request and the caller have set. Interceptors
    /// run for each attempt, in the order in which they were added.
    ///
    /// The closure runs on the I/O thread, so it must not block. If a token must be awaited, await
    /// it in the closure of the call. An error of the closure is the error of the attempt. A panic
    /// ends the call.
    pub fn intercept(mut self, f: impl Fn(Request<()>) -> Result<Request<()>, Status> + Send + Sync + 'static) -> Self {
        self.interceptors.push(Arc::new(f));
        self
    }

    /// Lets all calls wait for a connection; see [`Caller::wait_for_ready`].
    pub fn wait_for_ready(mut self) -> Self {
        self.overrides.waits_for_ready = true;
        self
    }

    /// Sets how many messages of a [stream](Caller::stream) are read ahead, 1 to 1,048,576.
    /// *Default: 16.*
    pub fn stream_buffer(mut self, messages: usize) -> Self {
        self.stream_buffer = messages;
        self
    }

    /// Limits how many attempts begin within a period: at most `calls` within every `period`,
    /// wherever it starts. *Default: no limit.*
    ///
    /// Each attempt counts: the first of a call, a retry, and one that finds no connection. An
    /// attempt waits for its turn on the I/O thread, in the order of arrival. It holds no worker,
    /// but the call's slot, so at most [`max_in_flight`](Self::max_in_flight) calls wait, and then
    /// callers wait as usual. After a pause, up to `calls` attempts begin at once.
    ///
    /// The wait counts towards the [timeout](Self::timeout). A call whose turn comes too late ends
    /// with `DEADLINE_EXCEEDED`, as soon as that is known, and was not sent. A retry whose turn
    /// comes too late ends with the error of the last attempt. A cancelled call uses up no turn.
    ///
    /// Clones of the caller share the limit. Time is that of a monotonic clock. With
    /// `Duration::MAX` at most `calls` attempts ever begin, and further calls fail at once. Zero
    /// calls and a period of zero are errors of [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tonic::{Code, Response, Status};
    /// use tonic::transport::Endpoint;
    /// use workcrew::WorkerPool;
    /// use workcrew::grpc::Caller;
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let caller = Caller::builder(Endpoint::from_static("http://127.0.0.1:50051"))
    ///     .rate(2, Duration::from_secs(3_600)) // the quota of the service
    ///     .build(&pool)?;
    /// let greet = |_target| async { Ok::<_, Status>(Response::new("hello")) };
    /// assert!(caller.call_blocking(greet).is_ok());
    /// assert!(caller.call_blocking(greet).is_ok());
    /// let late = caller.call_blocking(greet).unwrap_err(); // its turn is beyond the timeout
    /// assert_eq!((late.code(), late.is_unsent()), (Code::DeadlineExceeded, true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rate(mut self, calls: usize, period: Duration) -> Self {
        self.rate = Some((calls, period));
        self
    }

    /// Sets the label of the calls, which observers see. *Default: the endpoint's address, or
    /// `grpc` over a service*.
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Sets the class in which the closure of a [`call_then`](Caller::call_then) and the error of a
    /// [`notify`](Caller::notify) wait for a worker. The calls themselves hold no worker. *Default:
    /// [`Priority::Normal`].*
    pub fn priority(mut self, priority: Priority) -> Self {
        self.class = priority;
        self
    }

    /// Sets a hook that is called, on a worker, with the error of each [`notify`](Caller::notify)
    /// that failed. A panic of `f` is a panic of the call.
    ///
    /// `f` may notify again. It is called with an error of that call too, up to eight such errors
    /// in a row. A further error counts as a failed task, but `f` is not called. Otherwise a target
    /// that is down would keep the pool busy forever.
    pub fn on_error(mut self, f: impl Fn(CallError) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(f));
        self
    }

    /// Builds a caller whose calls are tasks of `pool`. Does not block and does not connect. The
    /// first call connects, and so does a later call that finds the connection lost.
    ///
    /// # Errors
    ///
    /// [`CallerError`], if a setting is invalid or the I/O thread could not be started.
    pub fn build(self, pool: &WorkerPool) -> Result<Caller, CallerError> {
        self.assemble(pool, |source, driver| {
            let _runtime = driver.io().runtime().enter();
            Ok(match source {
                Source::Endpoint(endpoint) => Transport::Channel(endpoint.connect_lazy()),
                Source::Service(make) => make.into_inner()(),
            })
        })
    }

    /// Builds a caller as [`build`](Self::build) does, and connects first, so that a wrong address
    /// or certificate is found at the start. Blocks until there is a connection, for at most the
    /// [timeout](Self::timeout). On a worker this holds the worker. If the connection is lost
    /// later, the next call connects again.
    ///
    /// Over a service it blocks until the service is ready. A channel that connects lazily is
    /// always ready.
    ///
    /// # Errors
    ///
    /// [`CallerError`], in the cases of `build`, or if there is no connection in time.
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

    /// Checks the settings and builds the caller over the transport that `transport` makes.
    fn assemble(
        self,
        pool: &WorkerPool,
        transport: impl FnOnce(Source, &Driver) -> Result<Transport, CallerError>,
    ) -> Result<Caller, CallerError> {
        let label = match &self.source {
            Source::Endpoint(endpoint) => {
                check_endpoint(endpoint)?;
                endpoint.uri().to_string().into()
            }
            Source::Service(_) => "grpc".into(),
        };
        if !(1..=MAX_STREAM_BUFFER).contains(&self.stream_buffer) {
            return Err(CallerError::StreamBuffer { requested: self.stream_buffer, limit: MAX_STREAM_BUFFER });
        }
        let turns = self.rate.map(check_rate).transpose()?;
        let methods = MethodTable::new(self.policy, self.timeout, self.methods);
        let methods = methods.map_err(|name| CallerError::Method { name })?;
        let driver = Driver::new(pool, self.max_in_flight).map_err(|error| match error {
            DriverError::Start(_) => CallerError::IoThread(error),
            error => CallerError::MaxInFlight(error),
        })?;
        let driver = driver.for_calls(self.label.unwrap_or(label), self.class);
        let transport = transport(self.source, &driver)?;
        let config = CallConfig {
            inner: Arc::new(CallerInner {
                transport,
                methods,
                executor: Arc::clone(&driver.pool().executor),
                interceptors: self.interceptors,
                turns,
            }),
            overrides: self.overrides,
            propagated: Arc::new(MetadataMap::new()),
            is_stream: false,
            closing: driver.pool().shutdown_token.clone(),
        };
        Ok(Caller { driver: Arc::new(driver), config, on_error: self.on_error, stream_buffer: self.stream_buffer })
    }
}

/// # Building
impl Caller {
    /// Configures a caller of the server at `endpoint`.
    pub fn builder(endpoint: Endpoint) -> CallerBuilder {
        CallerBuilder::new(Source::Endpoint(Box::new(endpoint)))
    }

    /// Configures a caller over an existing channel, or over a tower service around one: with
    /// layers, a custom connector or several endpoints.
    ///
    /// The runtime in which a channel was made drives its connection. If that runtime stops, so do
    /// the calls. [`over_with`](Self::over_with) makes the channel in the runtime that drives the
    /// calls.
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
    /// let target = move || Logged(Channel::balance_list(replicas.into_iter()));
    /// let caller = Caller::over_with(target).build(&pool)?;
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

    /// Configures a caller as [`over`](Self::over) does. `make` is called when the caller is built,
    /// inside the runtime of the pool's I/O thread.
    /// [`Channel::balance_list`](tonic::transport::Channel::balance_list) and
    /// [`Endpoint::connect_lazy`] need that.
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

/// Checks that an address has a scheme and a host, because no attempt can succeed without. (For a
/// Unix socket tonic puts in both.)
fn check_endpoint(endpoint: &Endpoint) -> Result<(), CallerError> {
    let uri = endpoint.uri();
    let problem = match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => return Ok(()),
        (Some("http" | "https"), _) => "names no host",
        (Some(_), _) => "is neither `http` nor `https`",
        (None, _) => "has no scheme: it must begin with `http://` or `https://`",
    };
    Err(CallerError::Endpoint { uri: uri.to_string(), problem })
}

/// Checks a rate.
fn check_rate((calls, period): (usize, Duration)) -> Result<TurnQueue, CallerError> {
    match (calls, period) {
        (0, _) => Err(CallerError::Rate { problem: "it allows no call" }),
        (_, Duration::ZERO) => Err(CallerError::Rate { problem: "its period is zero" }),
        _ => Ok(TurnQueue::new(calls, period)),
    }
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
            .field("rate", &self.rate)
            .field("priority", &self.class)
            .finish_non_exhaustive()
    }
}
