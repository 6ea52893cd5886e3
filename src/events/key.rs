//! The keys of events, for subscriptions that keep the order of each key.
//!
//! A mailbox knows the type of its events and not that of their keys. So a key is boxed. The
//! function that makes it is user code. It is called by the publisher, with no lock held.

use std::any::Any;
use std::hash::{BuildHasher, Hash, RandomState};

use crate::keyed::name::KeyName;
use crate::nesting;
use crate::sync::{Arc, Mutex};
use crate::unwind::{self, Payload};

/// Returns the key of an event, with its hash.
pub(super) type KeyOf<E> = dyn Fn(&E) -> (u64, EventKey) + Send + Sync;

/// The name of a key in a mailbox.
pub(super) type EventKeyName = Arc<KeyName<EventKey>>;

/// The key of an event.
pub(super) enum EventKey {
    /// The key. All keys of a mailbox are of the same type.
    Key(Box<dyn AnyKey>),
    /// The function panicked, or a comparison of keys did. Equal to no key.
    Panicked(Mutex<Option<Payload>>),
}

impl EventKey {
    /// Stands for the key of an event that has none because of a panic.
    pub(super) fn panicked(payload: Payload) -> Self {
        Self::Panicked(Mutex::new(Some(payload)))
    }

    /// Returns `true` if there is no key because of a panic.
    pub(super) fn has_panicked(&self) -> bool {
        matches!(self, Self::Panicked(_))
    }

    /// Resumes the panic that is there instead of a key.
    pub(super) fn resume_panic(&self) {
        if let Self::Panicked(payload) = self
            && let Some(payload) = { payload.lock().take() }
        {
            unwind::resume(payload)
        }
    }
}

impl Drop for EventKey {
    fn drop(&mut self) {
        if let Self::Panicked(payload) = self {
            unwind::discard(payload.lock().take());
        }
    }
}

impl PartialEq for EventKey {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(key), Self::Key(other)) => nesting::key_code(|| key.equals(other.as_any())),
            _ => false,
        }
    }
}

/// Makes a function of user code into one for a mailbox.
pub(super) fn key_of<E, K: Hash + Eq + Send + Sync + 'static>(
    key: impl Fn(&E) -> K + Send + Sync + 'static,
) -> Arc<KeyOf<E>> {
    let hasher = RandomState::new();
    Arc::new(move |event| {
        let key = key(event);
        (hasher.hash_one(&key), EventKey::Key(Box::new(key)))
    })
}

/// A key of any type.
pub(super) trait AnyKey: Send + Sync {
    /// Returns the key.
    fn as_any(&self) -> &dyn Any;

    /// Returns `true` if the other key is of the same type and equal.
    fn equals(&self, other: &dyn Any) -> bool;
}

impl<K: Eq + Send + Sync + 'static> AnyKey for K {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn equals(&self, other: &dyn Any) -> bool {
        other.downcast_ref() == Some(self)
    }
}
