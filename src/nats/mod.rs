//! Work shared by many processes on many machines, through a NATS server.
//!
//! When one machine is not enough, or work must survive its process, jobs go through a [`JobQueue`] on a NATS JetStream
//! server. The same handler that ran on the pool runs in as many [`Worker`]s as are started. A job is stored before it
//! is acknowledged to whoever enqueues it, and stays until it is done.
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
//! Worker::builder(&queue, "resizer").build()?.run(&pool, resize)?; // until somebody drains it
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Connection::publish`] and [`Connection::subscribe`] are plain NATS besides: fast, and at most once.
//!
//! What is guaranteed, which settings there are and how they interact, what a handler must bear: see `docs/nats.md` in
//! the repository.
//!
//! `connection` is what all share. `queue` stores jobs, `dead_letter` writes and reads those that are given up.
//! `worker` is the face of what works on jobs, `course` is one run of it: it asks for as many as `credit` allows, takes
//! them from its `inbox`, keeps them in its `hands` with their heartbeats, gives each to the pool as an `attempt`, and
//! has its `outcome` told. All of it runs on the I/O thread; handlers run on the workers.

mod attempt;
mod check;
mod connection;
mod connection_info;
mod consumer_plan;
mod consumer_settings;
mod control;
mod course;
mod credit;
mod dead_letter;
mod delay;
mod denied;
mod enqueue;
mod error;
mod event;
mod hands;
mod headers;
mod history;
mod inbox;
mod incarnation;
mod job;
mod leftover;
mod letters;
mod message;
mod metrics;
mod options;
mod outcome;
mod payload;
mod permission;
mod publisher;
mod queue;
mod server_clock;
mod settings;
mod status;
mod stream_settings;
mod subscription;
mod terms;
mod time_limit;
mod tls;
mod unreadable;
mod worker;

pub use self::check::InvalidArgument;
pub use self::connection::Connection;
pub use self::connection_info::{ConnectionStatistics, ServerInfo};
pub use self::consumer_plan::ConsumerPlan;
pub use self::consumer_settings::ConsumerSettings;
pub use self::dead_letter::{DeadLetter, DeadReason};
pub use self::enqueue::{Enqueued, NewJob};
pub use self::error::{BoxError, ConnectError, EnqueueError, PublishError, QueueError, WorkerError};
pub use self::event::Event;
pub use self::headers::Headers;
pub use self::job::Job;
pub use self::letters::DeadLetterQuery;
pub use self::message::Message;
pub use self::metrics::WorkerMetrics;
pub use self::options::{ConnectionBuilder, ReconnectSettings};
pub use self::payload::{Decode, Encode};
pub use self::publisher::Publisher;
pub use self::queue::{JobQueue, JobQueueBuilder};
pub use self::settings::Difference;
pub use self::status::{ConsumerStatus, QueueStatus};
pub use self::stream_settings::{QueuePlan, StreamSettings};
pub use self::subscription::{Subscription, SubscriptionBuilder};
pub use self::worker::{RunReport, Worker, WorkerBuilder};
