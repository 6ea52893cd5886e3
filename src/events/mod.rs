//! An event bus: values that are delivered to their handlers through the pool.
//!
//! - An *event* is a value of any type.
//! - A *subscription* is a handler for events of one type, optionally of one topic.
//! - A *mailbox* is the bounded queue of a subscription's deliveries.
//! - A *delivery* is one event for one subscription. It is a task of the pool: admitted when it is
//!   put into the mailbox, and done when the handler has returned for the last time.
//! - A *receipt* reports the outcomes of all deliveries of one event.

// `event_bus`, `builder`, `subscription`, `guard`, `receipt` and `metrics` are the public face.
// `registry` holds the subscriptions by type and topic; `envelope` holds an event while it is
// delivered; `publish` takes an event to its recipients. `members` lists the subscriptions for
// waits and for `measure`, which reads the `counters`. `mailbox` states the rules of a
// subscription, which `post`, `deliver`, `turn`, `batch`, `delay`, `complete` and `close` keep. Its
// deliveries are in a `queue`: one for the subscription, or one for each `key`,
// which `event_keys` finds for an event.
//
// | a wait for | file | on an empty stack | within a task of another pool | within a task of the bus's pool |
// |---|---|---|---|---|
// | an event's deliveries | `event_wait` | sleeps | registered | registered; makes deliveries itself |
// | room in mailboxes | `room_wait` | sleeps | registered | none; see rule 6 of `mailbox` |
// | the end of a subscription's runners | `stop_wait` | sleeps | registered | none: checks once |
// | an idle bus | `idle_wait` | sleeps | registered | a panic |
//
// A *registered* wait is in the registry of waits and blocks the tasks on its stack. So a worker
// of the bus's pool that waits for such a task makes the deliveries that the wait needs. A wait
// that closes a cycle is refused.
//
// Without a limit, no wait continues when a report has left something behind; see
// `task::report::Reported`. Waits for room need no such rule, because the end of the
// pool closes the mailboxes.
//
// A future never sleeps. It stores its waker where the thread would sleep; within a task of another
// pool it is registered too, but its wait is never refused. See `wait_async` and `publish_async`.

mod event_bus;
mod builder;
mod subscription;
mod guard;
mod receipt;
mod try_publish;
mod publish_async;
mod held;
mod wait_async;
mod progress;
mod counters;
mod metrics;
mod dead_letter;
mod handler;
mod batch_handler;
mod batch_builder;
mod key;
mod delivery;
mod event_keys;
mod queue;
mod registry;
mod envelope;
mod publish;
mod mailbox;
mod watcher;
mod post;
mod deliver;
mod turn;
mod batch;
mod delay;
mod event_wait;
mod complete;
mod close;
mod room_wait;
mod stop_wait;
mod idle_wait;
mod members;
mod measure;
mod inner;
mod erased;
mod notify;

#[cfg(feature = "prometheus")]
pub(crate) use self::measure::BusSample;

pub use self::batch_builder::BatchSubscriptionBuilder;
pub use self::batch_handler::{BatchError, BatchResult};
pub use self::builder::EventBusBuilder;
pub use self::dead_letter::{DeadLetter, UnhandledEvent};
pub use self::event_bus::EventBus;
pub use self::event_wait::WouldDeadlock;
pub use self::guard::Subscription;
pub use self::handler::{BoxError, HandlerResult};
pub use self::metrics::{DeliveryCounts, EventBusMetrics, SubscriptionMetrics};
pub use self::progress::DeliveryOutcome;
pub use self::publish_async::PublishAsync;
pub use self::receipt::{Delivery, Receipt};
pub use self::subscription::SubscriptionBuilder;
pub use self::try_publish::TryPublishError;
pub use self::wait_async::{WaitForBusIdle, WaitForReceipt};
