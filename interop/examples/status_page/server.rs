//! The HTTP server of the status page: three paths, on one thread with a runtime of its own.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The whole page: it loads nothing from elsewhere.
const PAGE: &str = include_str!("page.html");

/// What the page may do: run its own code and style, and ask this server.
const POLICY: &str =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:";

/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the answers come from.
pub(crate) struct Sources {
    pub(crate) registry: Registry,
    /// Returns the snapshot as JSON, or `None` when the pool no longer exists.
    pub(crate) snapshot: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// A server that has its address.
pub(crate) struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
}

/// A server that answers, until the process ends.
pub(crate) struct Serving {
    address: SocketAddr,
}

impl Server {
    /// Takes the address. Fails if it is in use.
    pub(crate) fn bind(address: &str) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        Ok(Self { runtime, listener, address })
    }

    /// Answers requests on a thread of its own.
    pub(crate) fn serve(self, sources: Sources) -> Serving {
        let Self { runtime, listener, address } = self;
        let sources = Arc::new(sources);
        thread::spawn(move || runtime.block_on(accept(&listener, &sources)));
        Serving { address }
    }
}

impl Serving {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: &TcpListener, sources: &Arc<Sources>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files, for example: other connections may end meanwhile.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let sources = Arc::clone(sources);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &sources);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut connection = http1::Builder::new();
            connection.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT);
            // A client that goes away is no concern of the server.
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(request: &Request<Incoming>, sources: &Sources) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/" => response(StatusCode::OK, "text/html; charset=utf-8", PAGE),
        "/snapshot.json" => match (sources.snapshot)() {
            Some(json) => response(StatusCode::OK, "application/json", json),
            None => response(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", "the pool has ended\n"),
        },
        "/metrics" => {
            let mut text = String::new();
            match prometheus_text::encode(&mut text, &sources.registry) {
                Ok(()) => response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
                Err(error) => {
                    response(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", error.to_string())
                }
            }
        }
        _ => response(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n"),
    }
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
