//! Tests of a group's inner counts.

use std::panic::Location;
use std::time::{Duration, Instant};

use super::body::Body;
use super::room::GroupRoom;
use super::settings::GroupSettings;
use super::state::{GroupInner, State};
use crate::error::CancelReason;
use crate::pool::worker_pool::WorkerPool;
use crate::priority::Priority;
use crate::sync::{Arc, AtomicBool, Ordering, thread};
use crate::task::job::TicketHolder;
use crate::task::room::RoomWait;
use crate::task::waits::{self, Kind, Next};
use crate::time::deadline::Deadline;

type Group = Arc<GroupInner<()>>;

fn pool_of(workers: usize) -> WorkerPool {
    WorkerPool::builder().workers(workers).build().expect("the pool starts")
}

/// A group that runs one task at a time, and holds one more.
fn narrow_group(pool: &WorkerPool) -> Group {
    let settings = GroupSettings { limit: 1, capacity: 1, ..GroupSettings::new(pool.inner()) };
    GroupInner::new(Arc::clone(pool.inner()), settings)
}

fn add(group: &Group, f: impl FnOnce() + Send + 'static) {
    let _ = group.spawn(|_| Body::once(f), Location::caller());
}

/// Yields to other threads until the condition holds.
fn yield_until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

/// Yields to other threads until the state satisfies the condition.
fn wait_until(group: &Group, condition: impl Fn(&State<()>) -> bool) {
    yield_until(|| condition(&group.state.lock()));
}

/// Returns the counts of tickets, runners and waiters.
fn count(group: &Group) -> [usize; 5] {
    let state = group.state.lock();
    let State { tickets, helpers, change_waiters, room_waiters, .. } = &*state;
    [tickets.sent(), tickets.runners(), *helpers, *change_waiters, usize::from(room_waiters.are_any())]
}

#[test]
fn a_submitter_that_has_waited_for_room_is_no_longer_counted() {
    let pool = pool_of(1);
    let group = narrow_group(&pool);
    let first = Arc::clone(&group);
    // Ends when the submitter waits for any room, after its wait for the low-water mark has timed
    // out.
    add(&group, move || wait_until(&first, |state| state.room_waiters.are_any()));
    for _ in 0..2 {
        add(&group, || ());
    }
    assert!(matches!(group.wait_values(Deadline::NEVER, Kind::Certain), Ok(Some(Ok(values))) if values.len() == 3));
    assert_eq!(count(&group), [0; 5]);
}

#[test]
fn a_worker_that_has_waited_for_a_group_is_no_longer_counted() {
    let pool = pool_of(2);
    let group = narrow_group(&pool);
    let waited_for = Arc::clone(&group);
    add(&group, move || wait_until(&waited_for, |state| state.helpers == 1));
    wait_until(&group, |state| state.running.len() == 1);
    let waiting = Arc::clone(&group);
    let waiter =
        pool.spawn(move || waiting.wait_values(Deadline::NEVER, Kind::Certain).is_ok()).expect("the pool is open");
    assert_eq!(waiter.join().ok(), Some(true));
    assert_eq!(count(&group), [0; 5]);
}

#[test]
fn a_waiter_for_the_next_completion_is_no_longer_counted() {
    let pool = pool_of(1);
    let group = narrow_group(&pool);
    let waited_for = Arc::clone(&group);
    add(&group, move || wait_until(&waited_for, |state| state.change_waiters == 1));
    assert!(matches!(group.next_completion(Deadline::NEVER), Ok(Some((0, Ok(()))))));
    assert!(matches!(group.next_completion(Deadline::NEVER), Ok(None)));
    assert_eq!(count(&group), [0; 5]);
}

#[test]
fn a_waiter_for_the_drop_of_tasks_is_no_longer_counted() {
    /// Its drop ends when a thread waits for it.
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
    add(&group, move || yield_until(|| may_end.load(Ordering::SeqCst)));
    wait_until(&group, |state| state.running.len() == 1);
    let slow = Slow(Arc::clone(&group));
    add(&group, move || drop(slow));
    let closing = Arc::clone(&group);
    let closer = thread::spawn(move || closing.close(CancelReason::Requested));
    wait_until(&group, |state| state.unstarted.is_empty());
    let dropped = group.next_completion(Deadline::NEVER);
    closer.join().expect("nothing panics");
    end.store(true, Ordering::SeqCst);
    let ended = group.next_completion(Deadline::NEVER);
    assert_eq!(count(&group), [0; 5]);
    assert!(matches!((dropped, ended), (Ok(Some((1, Err(_)))), Ok(Some((0, Ok(())))))));
}

#[test]
fn there_are_at_most_as_many_tickets_as_unstarted_tasks_and_workers() {
    let pool = pool_of(2);
    let end = Arc::new(AtomicBool::new(false));
    for _ in 0..2 {
        let end = Arc::clone(&end);
        pool.execute(move || yield_until(|| end.load(Ordering::SeqCst))).expect("the pool is open");
    }
    yield_until(|| pool.metrics().tasks_running == 2);
    let group = GroupInner::new(Arc::clone(pool.inner()), GroupSettings::new(pool.inner()));
    let tickets = [1, 2, 3].map(|_| {
        add(&group, || ());
        Arc::clone(&group).send_tickets();
        count(&group)[0]
    });
    end.store(true, Ordering::SeqCst);
    assert_eq!(tickets, [1, 2, 2], "at most as many as workers");
    assert!(matches!(group.wait_values(Deadline::NEVER, Kind::Certain), Ok(Some(Ok(values))) if values.len() == 3));
}

#[test]
fn tickets_that_are_taken_back_are_no_longer_counted() {
    let pool = pool_of(1);
    let group = GroupInner::new(Arc::clone(pool.inner()), GroupSettings::new(pool.inner()));
    let inner = Arc::clone(&group);
    let outer = pool.spawn(move || {
        // The only worker runs this task, so no worker takes the ticket.
        (0..2).for_each(|_| add(&inner, || ()));
        assert_eq!(count(&inner)[0], 1);
        inner.wait_values(Deadline::NEVER, Kind::Certain).is_ok()
    });
    assert_eq!(outer.expect("the pool is open").join().ok(), Some(true));
    assert_eq!(count(&group), [0; 5]);
}

/// Fault 491.
#[test]
fn a_submitter_whose_room_is_taken_after_its_wait_was_registered_registers_again() {
    let pool = pool_of(1);
    let group = narrow_group(&pool);
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    add(&group, move || yield_until(|| over.load(Ordering::Relaxed)));
    wait_until(&group, |state| state.unstarted.is_empty());
    let room = Arc::new(GroupRoom(Arc::clone(&group)));
    let moves = group.state.lock().moves();
    let Ok(Next::Sleep(wait, None)) = waits::register(Arc::clone(&room) as _, Kind::Yielding) else {
        panic!("there is nothing to help with")
    };
    add(&group, || ());
    assert!(room.is_full(&group.state.lock()), "another thread has taken the room");
    let until = Instant::now() + Duration::from_secs(60);
    group.sleep_for_room(&room, (&wait, Some(until)), moves, RoomWait::for_any_room());
    let has_slept = Instant::now() >= until;
    is_over.store(true, Ordering::Relaxed);
    assert!(!has_slept, "the waiter was registered with the needs of before");
}

/// Fault 517.
#[test]
fn a_source_that_waits_for_tasks_of_a_class_without_a_permit_is_not_left_waiting() {
    let pool = WorkerPool::builder().workers(2).background_workers(1).build().expect("the pool starts");
    let own = pool.clone();
    // This task holds the only permit, so the other worker, which sleeps, cannot help.
    let outer = pool.task().priority(Priority::Background).spawn(move |_| {
        yield_until(|| own.inner().has_idle_worker(Priority::Normal));
        let group = own.group::<()>().priority(Priority::Background);
        let has_run = Arc::new(AtomicBool::new(false));
        let first = Arc::clone(&has_run);
        let mut tasks = Some(move || first.store(true, Ordering::SeqCst)).into_iter();
        group.spawn_all(std::iter::from_fn(|| {
            let next = tasks.next();
            if next.is_none() {
                yield_until(|| has_run.load(Ordering::SeqCst));
            }
            next
        }));
        group.wait().expect("no task fails").len()
    });
    assert_eq!(outer.expect("there is room").join().expect("no panic"), 1);
}
