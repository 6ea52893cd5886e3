//! The name of a key: the key itself, its hash and its identity.

use crate::sync::Arc;
use crate::task::context::GroupId;

/// Identifies the entry of a key: the hash, and the address of the name. Valid while the name
/// lives.
pub(super) type KeyId = (u64, usize);

/// A key and its hash. One for each entry.
pub(crate) struct KeyName<K> {
    pub(super) hash: u64,
    pub(super) key: K,
}

impl<K> KeyName<K> {
    /// Returns the id of the entry that this name is in.
    pub(super) fn id(self: &Arc<Self>) -> KeyId {
        (self.hash, Arc::as_ptr(self).addr())
    }

    /// Returns the id of the frames of the key's tasks.
    pub(super) fn group(&self) -> GroupId {
        GroupId::of(self)
    }
}
