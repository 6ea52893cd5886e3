//! Costs of the registry, counted.

use super::entry::Entry;
use super::registry::{Decision, deregister, register};
use super::{Awaited, Kind, Needs};
use crate::error::{CycleKind, CycleTarget};
use crate::sync::{Arc, AtomicUsize, Ordering};
use crate::task::context::{AwaitedId, PoolId, Stack, ThreadId};

/// Something that is waited for and counts the reports of its needs.
struct Counted {
    id: AwaitedId,
    pool: PoolId,
    needs: AwaitedId,
    reports: Arc<AtomicUsize>,
}

impl Awaited for Counted {
    fn awaited_id(&self) -> AwaitedId {
        self.id
    }

    fn pool(&self) -> PoolId {
        self.pool
    }

    fn report_needs(&self, needs: &mut Needs) {
        self.reports.fetch_add(1, Ordering::Relaxed);
        needs.end_of(self.needs);
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::Task)
    }

    fn help(self: Arc<Self>) {}

    fn wake_waiters(&self) {}
}

/// Fault 169.
#[test]
fn a_wait_among_ten_thousand_visits_only_those_that_it_needs() {
    const WAITS: usize = 10_000;
    let reports = Arc::new(AtomicUsize::new(0));
    let register_one = || {
        let [id, needs, task] = [(); 3].map(|()| AwaitedId::from(PoolId::new()));
        let [pool, worker] = [(); 2].map(|()| PoolId::new());
        let target = Arc::new(Counted { id, pool, needs, reports: Arc::clone(&reports) });
        let names = vec![task, worker.into()];
        let stack = Stack {
            worker: Some(worker),
            thread: ThreadId::default(),
            depth: 1,
            names,
            tasks: Vec::new(),
            innermost: None,
        };
        match register(Entry::new(target, Kind::Certain, stack)) {
            Decision::Registered(entry, _) => entry,
            _ => unreachable!("the wait needs no worker and closes no cycle"),
        }
    };
    let mut entries: Vec<_> = (0..WAITS).map(|_| register_one()).collect();
    reports.store(0, Ordering::Relaxed);
    for at in (0..WAITS).step_by(100) {
        deregister(&entries[at]);
        entries[at] = register_one();
    }
    let changes = WAITS / 100;
    let counted = reports.load(Ordering::Relaxed);
    assert!(counted >= changes && counted <= 4 * changes, "{counted} reports for {changes} waits");
    entries.iter().for_each(deregister);
}
