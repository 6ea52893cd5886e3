//! Servers to test against, and a limit that turns a hang into a failure.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests fail by panicking, and share by `pub`")]

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{self, Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tonic::codegen::BoxFuture;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};
use workcrew::WorkerPool;
use workcrew::grpc::{Caller, CallerBuilder, Target};
use workcrew::retry::RetryPolicy;
use workcrew_interop::RawClient;

/// The time limit of a test. Only a hang reaches it, also on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(100);

/// A server of the script, by grpcio in its own process. Its drop kills the process.
pub struct Foreign {
    process: Child,
    pub address: SocketAddr,
}

impl Foreign {
    /// Starts the server at this port, or at a free one if it is 0. Without grpcio, prints a note
    /// and returns `None`; in CI, fails.
    pub fn start(port: u16) -> Option<Self> {
        Self::start_with(port, &[])
    }

    /// Like [`start`](Self::start), with options of the server: `NAME=NUMBER`.
    pub fn start_with(port: u16, options: &[&str]) -> Option<Self> {
        let python = std::env::var("WORKCREW_GRPC_PYTHON").unwrap_or_else(|_| "python3".into());
        let check = Command::new(&python).args(["-c", "import grpc"]).stderr(Stdio::null()).status();
        if !check.is_ok_and(|status| status.success()) {
            assert!(std::env::var_os("CI").is_none(), "{python} has no grpcio; set WORKCREW_GRPC_PYTHON");
            // Past the test harness, which would swallow it.
            let _ = writeln!(io::stderr(), "SKIPPED: {python} has no grpcio; set WORKCREW_GRPC_PYTHON to one that has");
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/server.py");
        let mut command = Command::new(python);
        command.args([script, &port.to_string()]).args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().unwrap();
        Some(Self { process, address: ([127, 0, 0, 1], port).into() })
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Aborts the test process if `f` takes longer than the limit.
pub fn with_watchdog<T>(f: impl FnOnce() -> T) -> T {
    let (done, watched) = mpsc::channel::<()>();
    let name = thread::current().name().unwrap_or("?").to_owned();
    thread::spawn(move || {
        if watched.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = writeln!(io::stderr(), "{name}: not done within {LIMIT:?}");
            process::abort();
        }
    });
    let result = f();
    drop(done);
    result
}

/// Creates a pool with `workers` workers and a queue of `capacity`.
pub fn pool(workers: usize, capacity: usize) -> WorkerPool {
    WorkerPool::builder().workers(workers).queue_capacity(capacity).build().unwrap()
}

/// A caller of the server at this address, to be configured.
pub fn caller(address: SocketAddr) -> CallerBuilder {
    Caller::builder(Endpoint::from_shared(format!("http://{address}")).unwrap())
}

/// The closure of a call: one attempt of a method of the script.
pub fn attempt(
    method: &'static str,
    text: &str,
) -> impl FnMut(Target) -> BoxFuture<Response<String>, Status> + Send + 'static {
    let text = text.to_owned();
    move |target| {
        let request = Request::new(text.clone());
        Box::pin(async move { RawClient::new(target).call(method, request).await })
    }
}

/// Short delays, so that tests are quick.
pub fn quick() -> RetryPolicy<Status> {
    RetryPolicy::fixed(Duration::from_millis(1))
}
