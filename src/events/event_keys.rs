//! The keys of events that have a delivery in a mailbox, by the items that stand for the events.
//!
//! An event has at most one delivery in a mailbox. An item is an address, which no input can
//! choose; so its hash is one multiplication.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::group::small_deque::smaller_capacity;
use crate::keyed::name::KeyId;

/// An odd number near 2^64 divided by the golden ratio, which spreads addresses over all bits.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// The keys of events.
#[derive(Default)]
pub(super) struct EventKeys {
    keys: HashMap<usize, KeyId, BuildHasherDefault<AddressHash>>,
}

/// Hashes an address.
#[derive(Default)]
struct AddressHash(u64);

impl Hasher for AddressHash {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only addresses are hashed");
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (address as u64).wrapping_mul(SPREAD).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl EventKeys {
    pub(super) fn get(&self, item: usize) -> Option<KeyId> {
        self.keys.get(&item).copied()
    }

    pub(super) fn insert(&mut self, item: usize, key: KeyId) {
        self.keys.insert(item, key);
    }

    /// Removes an event, and releases memory that is not used.
    pub(super) fn remove(&mut self, item: usize) {
        self.keys.remove(&item);
        if let Some(capacity) = smaller_capacity(self.keys.len(), self.keys.capacity()) {
            self.keys.shrink_to(capacity);
        }
    }
}
