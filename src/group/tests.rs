//! What a group counts, seen from inside.

use std::panic::Location;

use super::settings::GroupSettings;
use super::state::{GroupInner, State};
use crate::error::CancelReason;
use crate::pool::worker_pool::WorkerPool;
use crate::sync::{Arc, AtomicBool, Ordering, thread};
use crate::task::closure::Closure;
use crate::task::job::Ticket;
use crate::task::waits::Kind;
use crate::time::deadline::Deadline;

type Group = Arc<GroupInner<()>>;

fn pool_of(workers: usize) -> WorkerPool {
    WorkerPool::builder().workers(workers).build().expect("the pool starts")
}

/// A group that runs one task at a time, and holds one more.
fn narrow_group(pool: &WorkerPool) -> Group {
    let settings = GroupSettings { limit: 1, capacity: 1, ..GroupSettings::new(pool.engine()) };
    GroupInner::new(Arc::clone(pool.engine()), settings)
}

fn add(group: &Group, f: impl FnOnce() + Send + 'static) {
    let _ = group.spawn(|| Closure::new(f), Location::caller());
}

/// Lets others go on until it is so.
fn wait_while_not(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

/// Lets others go on until the state is as it should be.
fn wait_until(group: &Group, is_so: impl Fn(&State<()>) -> bool) {
    wait_while_not(|| is_so(&group.state.lock()));
}

/// Tickets, runners, and all who wait.
fn count(group: &Group) -> [usize; 6] {
    let state = group.state.lock();
    let State { tickets, runners, helpers, change_waiters, room_waiters, low_water_waiters, .. } = &*state;
    [*tickets, *runners, *helpers, *change_waiters, *room_waiters, *low_water_waiters]
}

#[test]
fn who_has_waited_for_room_counts_no_longer() {
    let pool = pool_of(1);
    let group = narrow_group(&pool);
    let first = Arc::clone(&group);
    // It ends when somebody waits for any room, after the time in which they wait for half of it.
    add(&group, move || wait_until(&first, |state| state.room_waiters == 1));
    for _ in 0..2 {
        add(&group, || ());
    }
    assert!(matches!(group.wait_values(Deadline::NEVER, Kind::Certain), Ok(Some(Ok(values))) if values.len() == 3));
    assert_eq!(count(&group), [0; 6]);
}

#[test]
fn a_worker_that_has_waited_for_a_group_counts_no_longer() {
    let pool = pool_of(2);
    let group = narrow_group(&pool);
    let waited_for = Arc::clone(&group);
    add(&group, move || wait_until(&waited_for, |state| state.helpers == 1));
    wait_until(&group, |state| state.running.len() == 1);
    let waiting = Arc::clone(&group);
    let waiter =
        pool.spawn(move || waiting.wait_values(Deadline::NEVER, Kind::Certain).is_ok()).expect("the pool is open");
    assert_eq!(waiter.join().ok(), Some(true));
    assert_eq!(count(&group), [0; 6]);
}

#[test]
fn who_has_waited_for_the_next_task_to_end_counts_no_longer() {
    let pool = pool_of(1);
    let group = narrow_group(&pool);
    let waited_for = Arc::clone(&group);
    add(&group, move || wait_until(&waited_for, |state| state.change_waiters == 1));
    assert!(matches!(group.next_completion(), Ok(Some((0, Ok(()))))));
    assert!(matches!(group.next_completion(), Ok(None)));
    assert_eq!(count(&group), [0; 6]);
}

#[test]
fn who_has_waited_for_tasks_to_be_dropped_counts_no_longer() {
    /// Is dropped when somebody waits for that.
    struct Slow(Group);
    impl Drop for Slow {
        fn drop(&mut self) {
            wait_until(&self.0, |state| state.change_waiters == 1);
        }
    }
    let pool = pool_of(1);
    let group = narrow_group(&pool);
    let end = Arc::new(AtomicBool::new(false));
    let may_end = Arc::clone(&end);
    add(&group, move || wait_while_not(|| may_end.load(Ordering::SeqCst)));
    wait_until(&group, |state| state.running.len() == 1);
    let slow = Slow(Arc::clone(&group));
    add(&group, move || drop(slow));
    let closing = Arc::clone(&group);
    let closer = thread::spawn(move || closing.close(CancelReason::Requested));
    wait_until(&group, |state| state.unstarted.is_empty());
    let dropped = group.next_completion();
    closer.join().expect("nothing panics");
    end.store(true, Ordering::SeqCst);
    let ended = group.next_completion();
    assert_eq!(count(&group), [0; 6]);
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
    let group = GroupInner::new(Arc::clone(pool.engine()), GroupSettings::new(pool.engine()));
    let tickets = [1, 2, 3].map(|_| {
        add(&group, || ());
        Arc::clone(&group).send_tickets();
        count(&group)[0]
    });
    end.store(true, Ordering::SeqCst);
    assert_eq!(tickets, [1, 2, 2], "nor than workers");
    assert!(matches!(group.wait_values(Deadline::NEVER, Kind::Certain), Ok(Some(Ok(values))) if values.len() == 3));
}

#[test]
fn tickets_that_are_taken_back_count_no_longer() {
    let pool = pool_of(1);
    let group = GroupInner::new(Arc::clone(pool.engine()), GroupSettings::new(pool.engine()));
    let inner = Arc::clone(&group);
    let outer = pool.spawn(move || {
        // The only worker is here: nobody comes to the ticket.
        (0..2).for_each(|_| add(&inner, || ()));
        assert_eq!(count(&inner)[0], 1);
        inner.wait_values(Deadline::NEVER, Kind::Certain).is_ok()
    });
    assert_eq!(outer.expect("the pool is open").join().ok(), Some(true));
    assert_eq!(count(&group), [0; 6]);
}
