//! The keys of events, for subscriptions that keep the order of each key.
//!
//! A mailbox knows the type of its events and not that of their keys. So a key is boxed. The
//! function that makes it is user code. It is called by the publisher, with no lock held.

use std::any::Any;
use std::hash::{BuildHasher, Hash, RandomState};
use std::mem;

use crate::keyed::name::KeyName;
use crate::nesting;
use crate::sync::{Arc, Mutex};
use crate::unwind::{self, Payload};

/// Makes the key of an event, and passes it with its hash to the closure, which it calls once.
pub(super) type KeyOf<E> = dyn Fn(&E, &mut UseKey<'_>) + Send + Sync;

/// Uses a key that was made.
pub(super) type UseKey<'a> = dyn FnMut(u64, &mut dyn NewKey) + 'a;

/// The name of a key in a mailbox.
pub(super) type EventKeyName = Arc<KeyName<EventKey>>;

/// The key of an event.
pub(super) enum EventKey {
    /// The key. All keys of a mailbox are of the same type.
    Key(Box<dyn Any + Send + Sync>),
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

/// A key that was made for an event. It is boxed only if its mailbox has no equal one.
pub(super) trait NewKey {
    /// Returns `true` if the other key is equal.
    fn is_equal(&self, other: &EventKey) -> bool;

    /// Takes the key, if it was not taken.
    fn take_key(&mut self) -> Option<EventKey>;
}

impl<K: Eq + Send + Sync + 'static> NewKey for Option<K> {
    fn is_equal(&self, other: &EventKey) -> bool {
        let EventKey::Key(other) = other else { return false };
        let other = other.downcast_ref::<K>();
        other.is_some() && nesting::key_code(|| self.as_ref() == other)
    }

    fn take_key(&mut self) -> Option<EventKey> {
        self.take().map(|key| EventKey::Key(Box::new(key)))
    }
}

/// What stands for the key of an event if user code panicked.
pub(super) struct Panicked(pub(super) Option<Payload>);

impl NewKey for Panicked {
    fn is_equal(&self, _: &EventKey) -> bool {
        false
    }

    fn take_key(&mut self) -> Option<EventKey> {
        self.0.take().map(EventKey::panicked)
    }
}

/// Makes a function of user code into one for a mailbox.
pub(super) fn key_of<E, K: Hash + Eq + Send + Sync + 'static>(
    key: impl Fn(&E) -> K + Send + Sync + 'static,
) -> Arc<KeyOf<E>> {
    let hasher = RandomState::new();
    Arc::new(move |event, use_key| {
        let (hash, key) = nesting::key_code(|| {
            let key = key(event);
            (hasher.hash_one(&key), key)
        });
        let mut key = Some(key);
        use_key(hash, &mut key);
        if mem::needs_drop::<K>() {
            nesting::discard(key); // a key is dropped by user code
        }
    })
}
