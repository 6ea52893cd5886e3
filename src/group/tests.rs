//! What a group counts, seen from inside.

use std::panic::Location;

use super::settings::GroupSettings;
use super::state::{GroupInner, State};
use crate::error::CancelReason;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::{Arc, AtomicBool, Ordering, thread};
use crate::task::closure::Closure;
use crate::task::job::TicketHolder;
use crate::task::waits::Kind;
use crate::time::deadline::Deadline;

type Core = Arc<GroupInner<()>>;

fn pool_of(workers: usize) -> WorkerPool {
    WorkerPool::builder().workers(workers).build().expect("the pool starts")
}

/// A group that runs one task at a time, and holds one more.
fn narrow_group(pool: &WorkerPool) -> Core {
    let settings = GroupSettings { limit: 1, capacity: 1, ..GroupSettings::new(pool.inner()) };
    GroupInner::new(Arc::clone(pool.inner()), settings)
}

fn add(core: &Core, f: impl FnOnce() + Send + 'static) {
    let _ = core.add(|| Closure::new(f), Location::caller());
}

/// Lets others go on until it is so.
fn wait_while_not(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

/// Lets others go on until the state is as it should be.
fn wait_until(core: &Core, is_so: impl Fn(&State<()>) -> bool) {
    wait_while_not(|| is_so(&core.state.lock()));
}

/// Tickets, runners, and all who wait.
fn count(core: &Core) -> [usize; 6] {
    let state = core.state.lock();
    let State { tickets, runners, helpers, wait_for_change, wait_for_room, wait_for_half_room, .. } = &*state;
    [*tickets, *runners, *helpers, *wait_for_change, *wait_for_room, *wait_for_half_room]
}

#[test]
fn who_has_waited_for_room_counts_no_longer() {
    let pool = pool_of(1);
    let core = narrow_group(&pool);
    let first = Arc::clone(&core);
    // It ends when somebody waits for any room, after the time in which they wait for half of it.
    add(&core, move || wait_until(&first, |state| state.wait_for_room == 1));
    for _ in 0..2 {
        add(&core, || ());
    }
    assert!(matches!(core.wait_values(Deadline::NEVER, Kind::Certain), Ok(Some(Ok(values))) if values.len() == 3));
    assert_eq!(count(&core), [0; 6]);
}

#[test]
fn a_worker_that_has_waited_for_a_group_counts_no_longer() {
    let pool = pool_of(2);
    let core = narrow_group(&pool);
    let waited_for = Arc::clone(&core);
    add(&core, move || wait_until(&waited_for, |state| state.helpers == 1));
    wait_until(&core, |state| state.running.len() == 1);
    let waiting = Arc::clone(&core);
    let waiter =
        pool.spawn(move || waiting.wait_values(Deadline::NEVER, Kind::Certain).is_ok()).expect("the pool is open");
    assert_eq!(waiter.join().ok(), Some(true));
    assert_eq!(count(&core), [0; 6]);
}

#[test]
fn who_has_waited_for_the_next_task_to_end_counts_no_longer() {
    let pool = pool_of(1);
    let core = narrow_group(&pool);
    let waited_for = Arc::clone(&core);
    add(&core, move || wait_until(&waited_for, |state| state.wait_for_change == 1));
    assert!(matches!(core.next_ended(), Ok(Some((0, Ok(()))))));
    assert!(matches!(core.next_ended(), Ok(None)));
    assert_eq!(count(&core), [0; 6]);
}

#[test]
fn who_has_waited_for_tasks_to_be_dropped_counts_no_longer() {
    /// Is dropped when somebody waits for that.
    struct Slow(Core);
    impl Drop for Slow {
        fn drop(&mut self) {
            wait_until(&self.0, |state| state.wait_for_change == 1);
        }
    }
    let pool = pool_of(1);
    let core = narrow_group(&pool);
    let end = Arc::new(AtomicBool::new(false));
    let may_end = Arc::clone(&end);
    add(&core, move || wait_while_not(|| may_end.load(Ordering::SeqCst)));
    wait_until(&core, |state| state.running.len() == 1);
    let slow = Slow(Arc::clone(&core));
    add(&core, move || drop(slow));
    let closing = Arc::clone(&core);
    let closer = thread::spawn(move || closing.close(CancelReason::Requested));
    wait_until(&core, |state| state.unstarted.is_empty());
    let dropped = core.next_ended();
    closer.join().expect("nothing panics");
    end.store(true, Ordering::SeqCst);
    let ended = core.next_ended();
    assert_eq!(count(&core), [0; 6]);
    assert!(matches!((dropped, ended), (Ok(Some((1, Err(_)))), Ok(Some((0, Ok(())))))));
}

#[test]
fn there_are_no_more_tickets_than_tasks_that_wait() {
    let pool = pool_of(2);
    let end = Arc::new(AtomicBool::new(false));
    for _ in 0..2 {
        let end = Arc::clone(&end);
        pool.execute(move || wait_while_not(|| end.load(Ordering::SeqCst))).expect("the pool is open");
    }
    wait_while_not(|| pool.metrics().tasks_running == 2);
    let core = GroupInner::new(Arc::clone(pool.inner()), GroupSettings::new(pool.inner()));
    let tickets = [1, 2, 3].map(|_| {
        add(&core, || ());
        Arc::clone(&core).send_tickets();
        count(&core)[0]
    });
    end.store(true, Ordering::SeqCst);
    assert_eq!(tickets, [1, 2, 2], "nor than workers");
    assert!(matches!(core.wait_values(Deadline::NEVER, Kind::Certain), Ok(Some(Ok(values))) if values.len() == 3));
}

#[test]
fn tickets_that_are_taken_back_count_no_longer() {
    let pool = pool_of(1);
    let core = GroupInner::new(Arc::clone(pool.inner()), GroupSettings::new(pool.inner()));
    let inner = Arc::clone(&core);
    let outer = pool.spawn(move || {
        // The only worker is here: nobody comes to the ticket.
        (0..2).for_each(|_| add(&inner, || ()));
        assert_eq!(count(&inner)[0], 1);
        inner.wait_values(Deadline::NEVER, Kind::Certain).is_ok()
    });
    assert_eq!(outer.expect("the pool is open").join().ok(), Some(true));
    assert_eq!(count(&core), [0; 6]);
}
