//! What is in flight for a pool beside its workers, for snapshots: drivers, and workers of NATS.
//!
//! A source is added once, when it is made or begins to run, and is forgotten after its end. Nothing
//! else is recorded: a snapshot asks each source for the counts that it has anyway.

use std::ptr;

use crate::snapshot::Holder;
use crate::sync::{Arc, Mutex, Weak};
use crate::task::job::Leftovers;

/// The number of sources that are looked at under one hold of the lock.
const PER_HOLD: usize = 64;

/// Something that has work in flight for a pool.
pub(crate) trait Source: Send + Sync {
    /// Copies the source for a snapshot. Runs no user code: what is left of values whose last
    /// reference was held here goes to `leftovers`.
    fn snapshot(&self, leftovers: &mut Leftovers) -> Holder;
}

/// The sources of one pool.
#[derive(Default)]
pub(crate) struct Sources(Mutex<Vec<Weak<dyn Source>>>);

impl Sources {
    /// Adds a source, unless it is there already. Forgets sources that are gone when the list would
    /// grow.
    pub(crate) fn add(&self, source: &Arc<impl Source + 'static>) {
        let weak = Arc::downgrade(source);
        let mut sources = self.0.lock();
        if sources.iter().any(|other| ptr::addr_eq(other.as_ptr(), weak.as_ptr())) {
            return;
        }
        if sources.len() == sources.capacity() {
            sources.retain(|other| other.strong_count() > 0);
        }
        sources.push(weak);
    }

    /// Calls `each` with the sources that exist, with no lock held. May miss one that is added at
    /// the same time.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&dyn Source)) {
        let mut next = 0;
        loop {
            let sources = self.0.lock();
            let Some(rest) = sources.get(next..).filter(|rest| !rest.is_empty()) else { break };
            let rest = &rest[..rest.len().min(PER_HOLD)];
            next += rest.len();
            let live: Vec<Arc<dyn Source>> = rest.iter().filter_map(Weak::upgrade).collect();
            drop(sources);
            live.iter().for_each(|source| each(&**source));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::DriverSnapshot;

    struct Empty;

    impl Source for Empty {
        fn snapshot(&self, _: &mut Leftovers) -> Holder {
            Holder::Driver(DriverSnapshot::default())
        }
    }

    #[test]
    fn a_source_is_listed_once_and_forgotten_after_its_end() {
        let (sources, kept) = (Sources::default(), Arc::new(Empty));
        for _ in 0..1_000 {
            sources.add(&kept);
            sources.add(&Arc::new(Empty));
        }
        let mut found = 0;
        sources.for_each(|_| found += 1);
        assert_eq!(found, 1);
        assert!(sources.0.lock().capacity() < 16);
    }
}
