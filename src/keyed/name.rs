//! The name of a key: the key itself, its hash and its identity.

use crate::sync::Arc;
use crate::task::context::GroupId;

/// Identifies the entry of a key: the hash, and the address of the name. Valid while the name
/// lives.
pub(crate) type KeyId = (u64, usize);

/// A key, its hash and its label. One for each entry.
pub(crate) struct KeyName<K> {
    pub(super) hash: u64,
    pub(crate) key: K,
    /// The label of its tasks, if keys have labels.
    pub(super) label: Option<Arc<str>>,
}

impl<K> KeyName<K> {
    /// Makes the name of a key without a label.
    #[cfg(feature = "events")]
    pub(crate) fn new(hash: u64, key: K) -> Arc<Self> {
        Arc::new(Self { hash, key, label: None })
    }

    /// Returns the id of the entry that this name is in.
    pub(crate) fn id(self: &Arc<Self>) -> KeyId {
        (self.hash, Arc::as_ptr(self).addr())
    }

    /// Returns the id of the frames of the key's tasks.
    pub(crate) fn group(&self) -> GroupId {
        GroupId::of(self)
    }
}
