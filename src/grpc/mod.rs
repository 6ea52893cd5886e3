//! Calls to gRPC servers from synchronous code, bounded and tried again, that hold no worker while they wait.
//!
//! A [`Caller`] has one target, a limit of calls in flight, a deadline and a policy for retries. A call returns a
//! [`JoinHandle`](crate::JoinHandle), or ends in a callback on a worker; it outlives whoever made it. Any client made by
//! `tonic-build`, and any made by hand, works: it gets a [`Target`] where it would get a channel.
//!
//! ```
//! # // A client as `tonic-build` makes them.
//! # mod payments {
//! #     pub struct Client<T>(T);
//! #     pub struct Receipt;
//! #     impl<T> Client<T> {
//! #         pub fn new(channel: T) -> Self { Self(channel) }
//! #         pub async fn pay(&mut self, cents: u64) -> Result<tonic::Response<Receipt>, tonic::Status> {
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
//! What is retried and why, whose deadline counts, and the traps: see `docs/grpc.md` in the repository.

// `builder` makes a caller, `caller` launches calls, `stream` reads streams of responses. `course` is what becomes of a call
// on the I/O thread. `target` is what an attempt is given, over a `transport`; `wire` is what its bodies tell; `end` is how
// it ended, and `details` what the server adds. `method` holds the settings, `error` is how a call fails. None of it waits
// or knows threads: that is the business of the futures' driver.

mod builder;
mod caller;
mod call;
mod details;
mod end;
mod error;
mod method;
mod stream;
mod target;
mod transport;
mod wire;

pub use self::builder::{CallerBuilder, CallerError};
pub use self::caller::Caller;
pub use self::end::is_unsent;
pub use self::error::CallError;
pub use self::method::MethodConfig;
pub use self::stream::MessageStream;
pub use self::target::Target;
