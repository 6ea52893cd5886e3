//! Calls to gRPC servers from synchronous code, with limits and retries. A call holds no worker
//! while it waits.
//!
//! A [`Caller`] has one target, a limit of calls in flight, a timeout and a retry policy. A call
//! returns a [`JoinHandle`](crate::JoinHandle), or ends in a callback on a worker. It may outlive
//! the task that made it. Every client that `tonic-build` generates works, and so does a
//! handwritten one: it takes a [`Target`] in place of a channel.
//!
//! ```
//! # // A client as `tonic-build` makes them.
//! # mod payments {
//! #     pub struct Client<T>(T);
//! #     pub struct Receipt;
//! #     impl<T> Client<T> {
//! #         pub fn new(channel: T) -> Self { Self(channel) }
//! #         pub async fn pay(
//! #             &mut self,
//! #             cents: u64,
//! #         ) -> Result<tonic::Response<Receipt>, tonic::Status> {
//! #             let _ = (&self.0, cents);
//! #             Ok(tonic::Response::new(Receipt))
//! #         }
//! #     }
//! # }
//! use std::time::Duration;
//! use tonic::transport::Endpoint;
//! use workcrew::grpc::Caller;
//! use workcrew::WorkerPool;
//! use workcrew::retry::RetryPolicy;
//!
//! let pool = WorkerPool::new()?;
//! let caller = Caller::builder(Endpoint::from_static("http://127.0.0.1:50051"))
//!     .max_in_flight(64)
//!     .timeout(Duration::from_secs(2))
//!     .retry(RetryPolicy::exponential().max_attempts(4))
//!     .build(&pool)?;
//! // The closure makes one attempt; it is called again for the next.
//! let call = caller.call(|target| async move { payments::Client::new(target).pay(995).await })?;
//! // ... other work ...
//! let receipt = call.join()??.into_inner();
//! # let _ = receipt;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `docs/grpc.md` in the repository explains what is retried and why, which deadline counts, and
//! the pitfalls.

// `builder` makes a caller, `caller` makes calls, and `stream` reads streams of responses. `call`
// runs a call on the I/O thread. `target` is the channel of an attempt, over a `transport`. `wire`
// observes the bodies of an attempt, `end` classifies how it ended, and `details` reads the
// server's pushback. `method` holds the settings of methods, and `error` is the error of a call.
// None of these modules blocks or knows threads: the driver of `io` does.

mod builder;
mod caller;
mod call;
mod details;
mod end;
mod error;
mod method;
mod rate;
mod stream;
mod target;
mod transport;
mod wire;

pub use self::builder::CallerBuilder;
pub use self::caller::Caller;
pub use self::end::is_unsent;
pub use self::error::{CallError, CallerError};
pub use self::method::MethodConfig;
pub use self::stream::MessageStream;
pub use self::target::Target;
