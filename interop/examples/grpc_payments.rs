//! A shop that is synchronous code takes payments by gRPC: it fires the call, goes on, and learns the outcome by a handle
//! or a callback. Runs by itself against a server in this process; `--addr 127.0.0.1:50051` talks to another one that
//! serves the script, `interop/server.py` for example.

use std::error::Error;
use std::sync::mpsc;
use std::time::Duration;

use tonic::transport::Endpoint;
use tonic::{Code, Request};
use workcrew::WorkerPool;
use workcrew::grpc::{Caller, Target};
use workcrew::retry::RetryPolicy;
use workcrew_interop::{RawClient, Script, Server};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (address, _server) = match (arguments.next().as_deref(), arguments.next()) {
        (Some("--addr"), Some(address)) => (address, None),
        _ => {
            let server = Server::start(&Script::default());
            (server.address().to_string(), Some(server))
        }
    };
    let pool = WorkerPool::builder().workers(2).build()?;
    let (failed, failures) = mpsc::channel();
    let caller = Caller::builder(Endpoint::from_shared(format!("http://{address}"))?)
        .max_in_flight(16)
        .timeout(Duration::from_secs(10))
        .retry(RetryPolicy::exponential().base_delay(Duration::from_millis(20)).max_attempts(4))
        .on_error(move |error| failed.send(error).unwrap_or(()))
        .build(&pool)?;

    // One attempt of a payment. The order's number is the idempotency key: a payment that is tried again is made once.
    let pay = |order: &'static str, script: &'static str| {
        move |target: Target| {
            let request = Request::new(format!("{order}-{} {script}", std::process::id()));
            async move { RawClient::new(target).call("Fail", request).await }
        }
    };

    // By handle: the shop packs the parcel meanwhile. The server is unavailable twice.
    let payment = caller.call(pay("order-1", "UNAVAILABLE 2"))?;
    println!("packing the parcel");
    println!("order-1 is paid, by attempt {}", payment.join()??.into_inner());

    // By callback on a worker, without a wait.
    let callback = caller.call_then(pay("order-2", "INVALID_ARGUMENT 9"), |paid| match paid {
        Ok(_) => "order-2 is paid".to_owned(),
        Err(error) => format!("order-2 is declined, after {} attempt: {error}", error.attempts()),
    })?;

    // Fire and forget: only an error is heard of.
    caller.notify(pay("order-3", "ABORTED 99"))?;
    let error = failures.recv()?;
    println!("order-3 failed after {} attempts: {error}", error.attempts());
    assert_eq!((error.code(), error.attempts()), (Code::Aborted, 4));
    println!("{}", callback.join()?);
    pool.shutdown(); // waits for the calls in flight
    Ok(())
}
