//! The subscriptions of a bus, for its waits and its metrics.
//!
//! A subscription that has ended leaves its counts, so that no sum ever shrinks: to the bus, and to
//! the other subscriptions of its name as long as there are some. So a name takes memory only while
//! it has a subscription.

use std::collections::BTreeMap;

use super::counters::DeliveryCounters;
use super::erased::AnyMailbox;
use super::metrics::DeliveryCounts;
use crate::sync::{Arc, Weak};
use crate::task::context::GroupId;

/// The subscriptions of a bus.
#[derive(Default)]
pub(super) struct Members {
    /// Those whose mailbox exists, in the order of subscribing.
    live: BTreeMap<GroupId, Member>,
    /// Their names.
    #[cfg(feature = "prometheus")]
    names: BTreeMap<Arc<str>, Name>,
    /// The counts of those that have ended.
    ended: DeliveryCounts,
}

/// A subscription.
struct Member {
    mailbox: Weak<dyn AnyMailbox>,
    #[cfg(feature = "prometheus")]
    name: Arc<str>,
    counters: Arc<DeliveryCounters>,
}

/// What the subscriptions of one name have in common.
#[cfg(feature = "prometheus")]
#[derive(Default)]
struct Name {
    /// How many of them exist; not zero.
    live: usize,
    /// The counts of those that have ended.
    ended: DeliveryCounts,
}

impl Members {
    /// Adds a subscription.
    pub(super) fn add(
        &mut self,
        group: GroupId,
        #[cfg_attr(not(feature = "prometheus"), allow(unused_variables))] name: &Arc<str>,
        mailbox: Weak<dyn AnyMailbox>,
        counters: Arc<DeliveryCounters>,
    ) {
        #[cfg(feature = "prometheus")]
        {
            self.names.entry(Arc::clone(name)).or_default().live += 1;
        }
        let member = Member {
            mailbox,
            #[cfg(feature = "prometheus")]
            name: Arc::clone(name),
            counters,
        };
        self.live.insert(group, member);
    }

    /// Removes a subscription and keeps its counts.
    pub(super) fn remove(&mut self, group: GroupId) {
        let Some(member) = self.live.remove(&group) else { return };
        let counts = member.counters.read();
        self.ended += counts;
        #[cfg(feature = "prometheus")]
        if let Some(name) = self.names.get_mut(&member.name) {
            name.live -= 1;
            name.ended += counts;
            if name.live == 0 {
                self.names.remove(&member.name);
            }
        }
    }

    /// Returns the number of subscriptions.
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// Returns the mailboxes. Drop them without a lock held.
    pub(super) fn mailboxes(&self) -> impl Iterator<Item = (GroupId, Arc<dyn AnyMailbox>)> {
        self.live.iter().filter_map(|(group, member)| Some((*group, member.mailbox.upgrade()?)))
    }

    /// Returns the counts of all subscriptions, including those that have ended.
    pub(super) fn counts(&self) -> DeliveryCounts {
        let mut counts = self.ended;
        self.live.values().for_each(|member| counts += member.counters.read());
        counts
    }

    /// Returns the counts by name, including those that have ended.
    #[cfg(feature = "prometheus")]
    pub(super) fn counts_by_name(&self) -> BTreeMap<Arc<str>, DeliveryCounts> {
        let ended = self.names.iter().map(|(name, named)| (Arc::clone(name), named.ended));
        let mut by_name: BTreeMap<_, _> = ended.collect();
        for member in self.live.values() {
            *by_name.entry(Arc::clone(&member.name)).or_default() += member.counters.read();
        }
        by_name
    }
}
