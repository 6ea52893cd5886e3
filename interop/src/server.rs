//! A scripted server in this process.
//!
//! A request is `KEY ARGUMENT`; what the server sees is counted for each key.
//!
//! | method | argument | does |
//! |---|---|---|
//! | `Echo` | a text | returns it |
//! | `Fail` | `CODE n` | fails n times with the code, then returns the number of the attempt |
//! | `Slow` | milliseconds | returns after that time |
//! | `Pushback` | `PUSHBACK n` | is unavailable n times with this `grpc-retry-pushback-ms` (or several, as in `1+2`; here only), then returns |
//! | `Details` | `SECONDS n` | is unavailable n times with a `google.rpc.RetryInfo` of this delay, then returns |
//! | `Limit` | `SECONDS n` | the same, out of resources, with the words of a size |
//! | `Stream` | `n` | a stream of n numbers |
//! | `Broken` | `n` | a stream of n numbers, and then unavailable |
//! | `Hold` | `n` | a stream of n numbers that does not end |
//! | `Trace` | a key | returns the value of that metadata key, or nothing |
//! | `Stats` | | returns `attempts=… peak=… cancelled=… headers=… gaps=…` of the key, not counted itself |

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tonic::codegen::tokio_stream::Stream;
use tonic::codegen::{BoxFuture, Context, Poll, Service, http};
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use crate::raw::RawCodec;

/// A running server. Dropping it breaks all connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Serves the script on a free port of the loopback device.
    #[must_use]
    pub fn start(script: &Script) -> Self {
        Self::start_at(script, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Serves the script at this address.
    #[must_use]
    pub fn start_at(script: &Script, address: SocketAddr) -> Self {
        Self::start_with(script, address, tonic::transport::Server::builder())
    }

    /// Serves the script at this address, with these settings.
    #[must_use]
    pub fn start_with(script: &Script, address: SocketAddr, settings: tonic::transport::Server) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let script = script.clone();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                tokio::select! {
                    served = settings.serve_with_incoming(script, incoming) => served.unwrap(),
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Returns an address of the loopback device at which no server listens.
#[must_use]
pub fn vacant_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

/// What the server does, and what it has seen.
#[derive(Clone, Debug, Default)]
pub struct Script {
    seen: Arc<Mutex<HashMap<String, Seen>>>,
}

/// What was seen of one key.
#[derive(Clone, Debug, Default)]
struct Seen {
    attempts: u32,
    running: usize,
    peak: usize,
    cancelled: usize,
    /// Of each attempt, the number of those before it, as the client says.
    headers: Vec<String>,
    /// When each attempt came.
    moments: Vec<Instant>,
}

impl Seen {
    fn report(&self) -> String {
        let gaps = self.moments.windows(2).map(|pair| (pair[1] - pair[0]).as_millis().to_string());
        format!(
            "attempts={} peak={} cancelled={} headers={} gaps={}",
            self.attempts,
            self.peak,
            self.cancelled,
            self.headers.join(","),
            gaps.collect::<Vec<_>>().join(","),
        )
    }
}

impl Script {
    async fn serve(self, method: String, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
        let (metadata, _, message) = request.into_parts();
        let text = String::from_utf8_lossy(&message).into_owned();
        let (key, argument) = text.split_once(' ').unwrap_or((&text, ""));
        if method == "Stats" {
            let seen = self.seen.lock().unwrap();
            let report = seen.get(key).map_or_else(|| Seen::default().report(), Seen::report);
            return Ok(Response::new(report.into_bytes()));
        }
        let mut visit = Visit::begin(&self, key, &metadata);
        let result = perform(&method, argument, visit.attempt, &metadata).await;
        visit.ended = true;
        result.map(|text| Response::new(text.into_bytes()))
    }
}

/// One attempt on the server. One that is dropped before it ended was cancelled.
struct Visit {
    script: Script,
    key: String,
    attempt: u32,
    ended: bool,
}

impl Visit {
    fn begin(script: &Script, key: &str, metadata: &MetadataMap) -> Self {
        let header = metadata.get("grpc-previous-rpc-attempts").map_or("0", |value| value.to_str().unwrap());
        let mut all = script.seen.lock().unwrap();
        let seen = all.entry(key.to_owned()).or_default();
        seen.attempts += 1;
        seen.running += 1;
        seen.peak = seen.peak.max(seen.running);
        seen.headers.push(header.to_owned());
        seen.moments.push(Instant::now());
        Self { script: script.clone(), key: key.to_owned(), attempt: seen.attempts, ended: false }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut all = self.script.seen.lock().unwrap();
        let seen = all.get_mut(&self.key).unwrap();
        seen.running -= 1;
        seen.cancelled += usize::from(!self.ended);
    }
}

async fn perform(method: &str, argument: &str, attempt: u32, metadata: &MetadataMap) -> Result<String, Status> {
    let (first, times) = argument.split_once(' ').unwrap_or((argument, "0"));
    let fails = || attempt <= times.parse().unwrap();
    match method {
        "Echo" => Ok(argument.to_owned()),
        "Fail" if fails() => Err(Status::new(code(first), "as the script says")),
        "Pushback" if fails() => {
            let mut trailers = MetadataMap::new();
            for word in first.split('+') {
                trailers.append("grpc-retry-pushback-ms", word.parse().unwrap());
            }
            Err(Status::with_metadata(Code::Unavailable, "as the script says", trailers))
        }
        "Details" | "Limit" if fails() => {
            let (code, message) = match method {
                "Details" => (Code::Unavailable, "as the script says"),
                _ => (Code::ResourceExhausted, "message larger than max"),
            };
            let details = retry_info(first.parse().unwrap());
            Err(Status::with_details(code, message, details.into()))
        }
        "Fail" | "Pushback" | "Details" | "Limit" => Ok(attempt.to_string()),
        "Slow" => {
            tokio::time::sleep(Duration::from_millis(argument.parse().unwrap())).await;
            Ok(String::new())
        }
        "Trace" => Ok(metadata.get(argument).map_or("", |value| value.to_str().unwrap()).to_owned()),
        _ => Err(Status::unimplemented("not in the script")),
    }
}

/// A `google.rpc.Status` with a `RetryInfo` of fewer than 128 seconds.
fn retry_info(seconds: u8) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let info = field(1, &[1 << 3, seconds]);
    let any = [field(1, b"type.googleapis.com/google.rpc.RetryInfo"), field(2, &info)].concat();
    field(3, &any)
}

/// The codes that the script knows.
fn code(name: &str) -> Code {
    match name {
        "UNAVAILABLE" => Code::Unavailable,
        "INVALID_ARGUMENT" => Code::InvalidArgument,
        "ABORTED" => Code::Aborted,
        "RESOURCE_EXHAUSTED" => Code::ResourceExhausted,
        "DEADLINE_EXCEEDED" => Code::DeadlineExceeded,
        _ => Code::Unknown,
    }
}

impl Service<http::Request<tonic::body::Body>> for Script {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let method = request.uri().path().trim_start_matches("/interop.Script/").to_owned();
        if ["Stream", "Broken", "Hold"].contains(&&*method) {
            let streaming = Streaming { script: self.clone(), method };
            return Box::pin(async move {
                Ok(tonic::server::Grpc::new(RawCodec).server_streaming(streaming, request).await)
            });
        }
        let unary = Unary { script: self.clone(), method };
        Box::pin(async move { Ok(tonic::server::Grpc::new(RawCodec).unary(unary, request).await) })
    }
}

/// One method of the script.
struct Unary {
    script: Script,
    method: String,
}

impl Service<Request<Vec<u8>>> for Unary {
    type Response = Response<Vec<u8>>;
    type Error = Status;
    type Future = BoxFuture<Response<Vec<u8>>, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        Box::pin(self.script.clone().serve(self.method.clone(), request))
    }
}

/// A streaming method of the script.
struct Streaming {
    script: Script,
    method: String,
}

impl tonic::server::ServerStreamingService<Vec<u8>> for Streaming {
    type Response = Vec<u8>;
    type ResponseStream = Numbers;
    type Future = BoxFuture<Response<Numbers>, Status>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        let (metadata, _, message) = request.into_parts();
        let text = String::from_utf8_lossy(&message).into_owned();
        let (key, argument) = text.split_once(' ').unwrap();
        let visit = Visit::begin(&self.script, key, &metadata);
        let numbers = Numbers { next: 0, end: argument.parse().unwrap(), method: self.method.clone(), visit };
        Box::pin(async move { Ok(Response::new(numbers)) })
    }
}

/// The messages of a streaming method.
struct Numbers {
    next: u32,
    end: u32,
    method: String,
    visit: Visit,
}

impl Stream for Numbers {
    type Item = Result<Vec<u8>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let number = self.next;
        self.next += 1;
        if number < self.end {
            return Poll::Ready(Some(Ok(number.to_string().into_bytes())));
        }
        match &*self.method {
            "Hold" => return Poll::Pending,
            "Broken" if number == self.end => return Poll::Ready(Some(Err(Status::unavailable("as the script says")))),
            _ => {}
        }
        self.visit.ended = true;
        Poll::Ready(None)
    }
}
