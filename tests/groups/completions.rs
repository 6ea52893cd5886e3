//! Outcomes one by one, as tasks end.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{self, BlockedWorkers, Gate, LIMIT, on_grid, pool, with_watchdog};
use workcrew::{CancelReason, GroupPolicy, TaskError, TaskGroup, TimedOut};

#[test]
fn completions_come_as_tasks_end() {
    on_grid(|pool| {
        let mut group = pool.group().capacity(4).limit(2);
        let gate = Gate::new();
        let slow = pool.workers() > 1;
        let inside = gate.clone();
        group.spawn(move || {
            if slow {
                inside.pass();
            }
            Ok::<_, ()>(0)
        });
        for n in 1..4 {
            group.spawn(move || Ok(n));
        }
        let mut completions = group.completions();
        if slow {
            let fast: Vec<_> = completions.by_ref().take(3).map(|(index, outcome)| (index, outcome.unwrap())).collect();
            assert_eq!(fast, [(1, 1), (2, 2), (3, 3)]);
            gate.open();
            assert_eq!(completions.next().unwrap().0, 0);
        } else {
            assert_eq!(completions.by_ref().count(), 4);
        }
        assert!(completions.next().is_none());
        // More tasks, more completions; the wait returns what was not yielded.
        group.spawn(|| Ok(9));
        assert_eq!(group.completions().next().unwrap().0, 4);
        group.spawn(|| Ok(10));
        assert_eq!(group.wait().unwrap(), [10]);
    });
}

#[test]
fn completions_include_cancelled_tasks_that_return_units() {
    on_grid(|pool| {
        let mut group = pool.group().limit(1).capacity(10);
        let gate = Gate::new();
        let inside = gate.clone();
        group.spawn(move || {
            inside.pass();
            Ok(())
        });
        group.spawn(|| Err("stop"));
        group.spawn_all((0..8).map(|_| || Ok(())));
        gate.open();
        let mut seen: Vec<_> = group.completions().map(|(index, outcome)| (index, outcome.is_ok())).collect();
        seen.sort_unstable();
        assert!(seen.iter().map(|(index, _)| *index).eq(0..10), "{seen:?}");
        assert_eq!(seen.iter().filter(|(_, ok)| *ok).count(), 1);
    });
}

#[test]
fn outcomes_that_were_handed_out_do_not_come_back() {
    on_grid(|pool| {
        let mut group = pool.group().policy(GroupPolicy::CollectAll).limit(1).capacity(8);
        group.spawn_all([Ok(1), Err("one"), Ok(2), Err("two")].map(|result| move || result));
        let handed_out: Vec<_> = group.completions().take(2).collect();
        assert!(matches!(handed_out[..], [(0, Ok(1)), (1, Err(TaskError::Failed("one")))]));
        assert_eq!(group.wait_any().unwrap(), 2);

        let mut units = pool.group().policy(GroupPolicy::CollectAll).limit(1).capacity(8);
        units.spawn_all([Err("one"), Ok(()), Ok(())].map(|result| move || result));
        assert!(units.completions().next().unwrap().1.is_err());
        assert_eq!(units.wait().unwrap().len(), 2);
    });
}

#[test]
fn outcomes_streamed_one_by_one_take_no_memory() {
    let pool = pool(1, 4);
    let mut group = pool.group();
    let spawner = group.spawner();
    spawner.spawn(|| Ok::<_, ()>([1_u8; 1_000]));
    let mut seen = 0;
    for (index, outcome) in group.completions() {
        assert!(index == seen && outcome.is_ok());
        seen += 1;
        if seen < 10_000 {
            spawner.spawn(|| Ok([1; 1_000]));
        }
    }
    assert_eq!(seen, 10_000);
}

#[test]
fn completions_that_would_deadlock_panic() {
    common::quiet_panics();
    on_grid(|pool| {
        let (give, take) = mpsc::channel::<TaskGroup<Result<(), ()>>>();
        let group = pool.group();
        let (told, tell) = mpsc::channel();
        group.spawn(move || {
            let mut group = take.recv().unwrap();
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| group.completions().count()));
            // A wait with a time limit returns at once.
            let timed = group.completions().next_timeout(Duration::MAX);
            told.send(panicked.is_err() && matches!(timed, Err(TimedOut))).unwrap();
            Ok(())
        });
        give.send(group).unwrap();
        assert!(tell.recv_timeout(LIMIT).unwrap());
    });
}

#[test]
fn completions_in_the_destructor_of_a_member_panic_and_do_not_hang() {
    struct Looks(mpsc::Receiver<TaskGroup<()>>, mpsc::Sender<bool>);
    impl Drop for Looks {
        fn drop(&mut self) {
            let mut group = self.0.recv().unwrap();
            let look = std::panic::AssertUnwindSafe(|| group.completions().next().is_some());
            self.1.send(std::panic::catch_unwind(look).is_err()).unwrap();
        }
    }
    let quiet = thread::Builder::new().name("workcrew-test".into());
    common::quiet_panics();
    let run = || {
        on_grid(|pool| {
            let wedge = BlockedWorkers::new(&pool);
            let (give, take) = mpsc::channel();
            let (told, tell) = mpsc::channel();
            let group = pool.group();
            let looks = Looks(take, told);
            group.spawn(move || drop(looks));
            let token = group.token().clone();
            give.send(group).unwrap();
            token.cancel();
            assert!(tell.recv_timeout(LIMIT).unwrap());
            wedge.open();
        });
    };
    quiet.spawn(run).unwrap().join().unwrap();
}

#[test]
fn completions_that_have_come_to_an_end_stay_there() {
    let pool = pool(1, 4);
    let mut group = pool.group();
    let spawner = group.spawner();
    group.spawn(|| ());
    let mut completions = group.completions();
    assert!(completions.next().is_some() && completions.next().is_none());
    spawner.spawn(|| ());
    assert!(completions.next().is_none());
    assert_eq!(group.completions().count(), 1);
}

/// Fault 347.
#[test]
fn the_next_completion_is_waited_for_at_most_for_the_time_given() {
    with_watchdog(|| {
        on_grid(|pool| {
            let mut group = pool.group().limit(1).capacity(4);
            let gate = Gate::new();
            let inside = gate.clone();
            group.spawn(move || {
                inside.pass();
                Ok::<_, ()>("first")
            });
            group.spawn(|| Ok("second"));
            gate.wait_started(1);
            let mut completions = group.completions();
            for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(20)] {
                let since = Instant::now();
                assert!(matches!(completions.next_timeout(timeout), Err(TimedOut)));
                assert!(since.elapsed() >= timeout);
            }
            gate.open();
            assert!(matches!(completions.next_timeout(LIMIT), Ok(Some((0, Ok("first"))))));
            assert!(matches!(completions.next_timeout(Duration::MAX), Ok(Some((1, Ok("second"))))));
            for timeout in [Duration::ZERO, Duration::MAX] {
                assert!(matches!(completions.next_timeout(timeout), Ok(None)));
            }
            // What has ended is there without waiting.
            group.spawn(|| Ok("third"));
            pool.wait_idle();
            let mut completions = group.completions();
            assert!(matches!(completions.next_timeout(Duration::ZERO), Ok(Some((2, Ok("third"))))));
            assert!(matches!(completions.next_timeout(Duration::ZERO), Ok(None)));
        });
    });
}

/// Fault 347.
#[test]
fn on_a_worker_the_next_completion_is_helped_along_only_if_the_wait_may_last_forever() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let inner = pool.clone();
        let outer = pool.spawn(move || {
            let mut group = inner.group();
            group.spawn(|| Ok::<_, ()>(7));
            let mut completions = group.completions();
            let timed = completions.next_timeout(Duration::from_millis(10)).is_err();
            timed && matches!(completions.next_timeout(Duration::MAX), Ok(Some((0, Ok(7)))))
        });
        assert!(outer.unwrap().join().unwrap());
    });
}

/// Fault 347.
#[test]
fn the_deadline_of_the_group_ends_a_wait_for_the_next_completion() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let wedge = BlockedWorkers::new(&pool);
        let mut group = pool.group::<()>().deadline(Instant::now() + Duration::from_millis(10));
        group.spawn(|| ());
        let mut completions = group.completions();
        let expired = completions.next_timeout(Duration::MAX);
        assert!(matches!(expired, Ok(Some((0, Err(TaskError::Cancelled(CancelReason::Expired)))))));
        assert!(matches!(completions.next_timeout(Duration::ZERO), Ok(None)));
        wedge.open();
    });
}

/// Fault 347.
#[test]
fn a_look_for_the_next_completion_does_not_wait_for_closures_that_are_being_dropped() {
    /// Its drop passes a gate.
    struct Slow(Gate);
    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.pass();
        }
    }
    with_watchdog(|| {
        let pool = pool(1, 4);
        let wedge = BlockedWorkers::new(&pool);
        let mut group = pool.group::<()>();
        let (gate, spawner) = (Gate::new(), group.spawner());
        let slow = Slow(gate.clone());
        group.spawn(move || drop(slow));
        let closer = thread::spawn(move || spawner.cancel());
        gate.wait_started(1);
        let mut completions = group.completions();
        for timeout in [Duration::ZERO, Duration::from_millis(10)] {
            assert!(completions.next_timeout(timeout).is_err());
        }
        gate.open();
        assert!(matches!(completions.next_timeout(LIMIT), Ok(Some((0, Err(_))))));
        closer.join().unwrap();
        wedge.open();
    });
}
