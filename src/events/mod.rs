//! Events: values that reach their handlers through the pool.
//!
//! An *event* is a value of any type. A *subscription* is a handler for events of one type, and perhaps one topic, with a
//! *mailbox* of events it has not handled. A *delivery* is one event for one subscription: a task of the pool, admitted
//! when it goes into the mailbox and settled when the handler is done with it for good. A *receipt* tells of all deliveries
//! of one event. `event_bus` is the face, `registry` knows who listens, `envelope` is what goes around; `publishing`
//! takes an event round, `mailbox` holds the protocol of a subscription, with its rules, and `posting`, `running`, `delay`,
//! `helping` and `ending` are its sides.

mod event_bus;
mod builder;
mod subscription;
mod receipt;
mod progress;
mod dead_letter;
mod handler;
mod registry;
mod envelope;
mod publish;
mod mailbox;
mod watcher;
mod post;
mod deliver;
mod delay;
mod event_wait;
mod close;
mod room_wait;
mod stop_wait;
mod idle_wait;
mod inner;
mod erased;
mod notify;

pub use self::builder::EventBusBuilder;
pub use self::dead_letter::{DeadLetter, UnhandledEvent};
pub use self::event_bus::EventBus;
pub use self::event_wait::WouldDeadlock;
pub use self::handler::{BoxError, HandlerResult};
pub use self::progress::DeliveryOutcome;
pub use self::receipt::{Delivery, Receipt};
pub use self::subscription::{Subscription, SubscriptionBuilder};
