//! Job queues shared by many processes on many machines, through a NATS server.
//!
//! Use them when one machine is not enough, or when work must survive its process. Jobs go through
//! a [`JobQueue`] on a NATS JetStream server. The handler that ran on the pool runs in any number
//! of [`Worker`]s. A job is stored before [`enqueue`](JobQueue::enqueue) returns, and stays stored
//! until it is done.
//!
//! ```no_run
//! use workcrew::WorkerPool;
//! use workcrew::nats::{Connection, Job, JobQueue, Worker};
//!
//! fn resize(job: &Job) -> Result<(), std::io::Error> {
//!     println!("resizing {:?}", job.text());
//!     Ok(())
//! }
//!
//! let pool = WorkerPool::new()?;
//! let connection = Connection::builder("127.0.0.1:4222").connect(&pool)?;
//! let queue = JobQueue::builder(&connection, "RESIZE").subject("resize.*").open()?;
//! queue.enqueue("resize.small", "image 7", "resize-7")?;
//! Worker::builder(&queue, "resizer").build()?.run(&pool, resize)?; // until it is drained
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Connection::publish`] and [`Connection::subscribe`] are plain NATS: fast, and at most once.
//!
//! The guarantees, the settings and what handlers must tolerate are described in `docs/nats.md` in
//! the repository.
//!
//! - `core` holds the connection, and publishing and subscribing over it.
//! - `queue` stores jobs. It also writes and reads dead letters.
//! - `worker` processes jobs. A run requests as many jobs as its `credit` allows, receives them in
//!   its `inbox` and keeps them `in_flight` with their heartbeats. It passes each to the pool as a
//!   `job_task`, and acknowledges it (`ack`).
//!
//! All of this runs on the I/O thread; handlers run on the pool's workers.

mod core;
mod queue;
mod worker;

mod check;
mod config_diff;
mod error;
mod event;
mod headers;
mod payload;
mod server_time;

pub use self::check::InvalidArgument;
pub use self::config_diff::ConfigMismatch;
pub use self::core::connect::ConnectionBuilder;
pub use self::core::connection::Connection;
pub use self::core::connection_info::{ConnectionStatistics, ServerInfo};
pub use self::core::message::Message;
pub use self::core::publisher::Publisher;
pub use self::core::reconnect::ReconnectSettings;
pub use self::core::subscription::{Subscription, SubscriptionBuilder};
pub use self::error::{BoxError, ConnectError, EnqueueError, PublishError, QueueError, WorkerError};
pub use self::event::Event;
pub use self::headers::Headers;
pub use self::payload::{Decode, Encode};
pub use self::queue::dead_letter::{DeadLetter, DeadLetterReason};
pub use self::queue::enqueue::{Enqueued, NewJob};
pub use self::queue::letters::DeadLetterQuery;
pub use self::queue::plan::QueuePlan;
pub use self::queue::status::QueueStatus;
pub use self::queue::stream_settings::StreamSettings;
pub use self::queue::{JobQueue, JobQueueBuilder};
pub use self::worker::Worker;
pub use self::worker::builder::WorkerBuilder;
pub use self::worker::config::RunReport;
pub use self::worker::consumer_plan::ConsumerPlan;
pub use self::worker::consumer_settings::ConsumerSettings;
pub use self::worker::job::Job;
pub use self::worker::job_outcome::JobOutcome;
pub use self::worker::metrics::WorkerMetrics;
pub use self::worker::status::ConsumerStatus;
