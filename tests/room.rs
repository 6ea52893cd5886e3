//! Room in a group: waiting for it, making it, and limits that hold meanwhile.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use common::{BlockedWorkers, Counter, Gate, Mutex, in_threads, on_grid, pool, with_watchdog};
use workcrew::{CancelReason, GroupError, JoinHandle, TaskError};

#[test]
fn a_member_that_finds_its_group_full_runs_the_task_before_it_goes_on() {
    on_grid(|pool| {
        let group = pool.group().limit(1).capacity(1);
        let (spawner, order) = (group.spawner(), Arc::new(Mutex::new(Vec::new())));
        let noted = Arc::clone(&order);
        group.spawn(move || {
            for number in 0..4 {
                let noted = Arc::clone(&noted);
                spawner.spawn(move || noted.lock().unwrap().push(number));
            }
            // The first task waits in the only place, and no other worker may run it. The
            // other tasks have no place.
            assert_eq!(*noted.lock().unwrap(), [1, 2, 3]);
        });
        group.wait().unwrap();
        assert_eq!(*order.lock().unwrap(), [1, 2, 3, 0]);
    });
}

#[test]
fn a_worker_that_makes_room_itself_runs_one_task_for_one_place() {
    with_watchdog(|| {
        let pool = pool(1, 64);
        let inner = pool.clone();
        let ran = pool.spawn(move || {
            let (group, ran) = (inner.group().capacity(2), Counter::new());
            let ran_by_then = [(); 5].map(|()| {
                let counted = ran.clone();
                group.spawn(move || counted.add());
                ran.get()
            });
            group.wait().unwrap();
            ran_by_then
        });
        assert_eq!(ran.unwrap().join().unwrap(), [0, 0, 1, 2, 3]);
    });
}

#[test]
fn workers_that_make_room_themselves_keep_the_limit() {
    with_watchdog(|| {
        let pool = pool(4, 64);
        for limit in [1, 2] {
            let group = pool.group().limit(limit).capacity(1);
            let (running, most, ran) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Counter::new());
            let adding: Vec<_> = (0..3)
                .map(|_| {
                    let (spawner, running, most, ran) = (group.spawner(), running.clone(), most.clone(), ran.clone());
                    let add = move || {
                        for _ in 0..60 {
                            let (running, most, ran) = (running.clone(), most.clone(), ran.clone());
                            spawner.spawn(move || {
                                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                                (0..2).for_each(|_| thread::yield_now());
                                running.fetch_sub(1, SeqCst);
                                ran.add();
                            });
                        }
                    };
                    pool.spawn(add).unwrap()
                })
                .collect();
            adding.into_iter().for_each(|adding| adding.join().unwrap());
            group.wait().unwrap();
            assert_eq!(ran.get(), 180);
            assert!((1..=limit).contains(&most.load(SeqCst)), "{most:?} at once, {limit} allowed");
        }
    });
}

#[test]
fn workers_that_wait_keep_the_limit() {
    with_watchdog(|| {
        let pool = pool(4, 64);
        let (most, ran) = (Arc::new(AtomicUsize::new(0)), Counter::new());
        let wait = || {
            let (inner, most, ran) = (pool.clone(), most.clone(), ran.clone());
            move || {
                for _ in 0..15 {
                    let running = Arc::new(AtomicUsize::new(0));
                    let group = inner.group().limit(1);
                    for _ in 0..10 {
                        let (running, most, ran) = (running.clone(), most.clone(), ran.clone());
                        group.spawn(move || {
                            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                            (0..2).for_each(|_| thread::yield_now());
                            running.fetch_sub(1, SeqCst);
                            ran.add();
                        });
                    }
                    group.wait().unwrap();
                }
            }
        };
        let waiting: Vec<_> = (0..2).map(|_| pool.spawn(wait()).unwrap()).collect();
        waiting.into_iter().for_each(|waiting| waiting.join().unwrap());
        assert_eq!((ran.get(), most.load(SeqCst)), (300, 1));
    });
}

#[test]
fn a_worker_that_has_waited_long_for_room_wakes_when_a_runner_leaves_tasks_behind() {
    with_watchdog(|| {
        let pool = pool(2, 4);
        let (gate, about_to_wait) = (Gate::new(), Gate::new());
        let (inner, inside, soon) = (pool.clone(), gate.clone(), about_to_wait.clone());
        let ended = pool.spawn(move || {
            let mut group = inner.group().limit(1).capacity(1);
            let (spawner, first, ready) = (group.spawner(), inside.clone(), Gate::new());
            let here = ready.clone();
            let filler = inner.spawn(move || {
                here.pass();
                inside.wait_started(1);
                spawner.spawn(|| Ok(()));
                soon.pass();
                spawner.spawn(|| Ok(())); // full, and the one runner is at its limit
            });
            ready.wait_started(1);
            ready.open(); // the other worker is busy, so this one runs the first task
            group.spawn(move || {
                first.pass();
                Ok::<_, ()>(())
            });
            // This worker runs the first task and stops with the second left; the ticket for that finds no free worker.
            assert!(group.completions().next().is_some());
            filler.unwrap().join().unwrap();
            group.completions().count()
        });
        about_to_wait.wait_started(1);
        about_to_wait.open();
        thread::sleep(Duration::from_millis(50)); // longer than it waits for half of the room; the rest holds without
        gate.open();
        assert_eq!(ended.unwrap().join().unwrap(), 2);
    });
}

#[test]
fn a_worker_that_waits_at_the_limit_wakes_when_the_runner_gives_way_to_other_jobs() {
    with_watchdog(|| {
        let pool = pool(2, 64);
        let (gate, waited) = (Gate::new(), Gate::new());
        let (inner, inside, over) = (pool.clone(), gate.clone(), waited.clone());
        let waiting = pool.spawn(move || {
            let group = inner.group().limit(1);
            let first = inside.clone();
            group.spawn(move || first.pass());
            inside.wait_started(1); // the other worker is the runner
            (0..40).for_each(|_| group.spawn(|| ()));
            let held = over.clone();
            inner.execute(move || held.pass()).unwrap(); // the runner turns to this, with tasks left
            let values = group.wait().unwrap();
            over.open();
            values.len()
        });
        gate.wait_started(1);
        thread::sleep(Duration::from_millis(50)); // so that it sleeps by then, as is likely; the rest holds without
        gate.open();
        assert_eq!(waiting.unwrap().join().unwrap(), 41);
    });
}

/// Passes the gate when it is dropped.
struct HeldAtDrop(Gate);

impl Drop for HeldAtDrop {
    fn drop(&mut self) {
        self.0.pass();
    }
}

#[test]
fn completions_wait_for_tasks_whose_closures_are_being_dropped() {
    with_watchdog(|| {
        let pool = pool(1, 4);
        let _wedge = BlockedWorkers::new(&pool);
        for round in 0..20 {
            let mut group = pool.group();
            let gate = Gate::new();
            let held = HeldAtDrop(gate.clone());
            group.spawn(move || drop(held));
            let token = group.token().clone();
            in_threads(|threads| {
                threads.spawn(move || token.cancel());
                gate.wait_started(1);
                let opened = gate.clone();
                threads.spawn(move || {
                    (0..round * 4).for_each(|_| thread::yield_now());
                    opened.open();
                });
                let ended: Vec<_> = group.completions().collect();
                assert!(matches!(ended[..], [(0, Err(TaskError::Cancelled(CancelReason::Requested)))]));
            });
        }
    });
}

#[test]
fn the_token_of_a_spawner_is_the_token_of_its_group() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let group = pool.group();
        let spawner = group.spawner();
        group.spawn(|| ());
        spawner.token().cancel();
        assert!(group.is_cancelled() && group.token().is_cancelled());
        assert!(matches!(group.wait(), Err(GroupError::Cancelled(CancelReason::Requested))));
        wedge.open();
    });
}

/// Fault 482.
#[test]
fn a_task_that_waits_for_room_goes_on_if_the_room_needs_a_task_that_waits_for_it() {
    with_watchdog(|| {
        for abroad in [None, Some(pool(1, 64))] {
            let home = pool(2, 64);
            let abroad = abroad.unwrap_or_else(|| home.clone());
            let (ran, started) = (Counter::new(), Gate::new());
            let group = abroad.group::<()>().limit(1).capacity(1);
            let (handle, joined) = channel::<JoinHandle<()>>();
            let (counted, inside) = (ran.clone(), started.clone());
            group.spawn(move || {
                inside.pass();
                joined.recv().unwrap().join().unwrap();
                counted.add();
            });
            started.wait_started(1);
            let counted = ran.clone();
            group.spawn(move || counted.add()); // the group is full
            let (spawner, counted) = (group.spawner(), ran.clone());
            handle.send(home.spawn(move || spawner.spawn(move || counted.add())).unwrap()).unwrap();
            started.open();
            group.wait().unwrap();
            assert_eq!(ran.get(), 3);
        }
    });
}

/// Fault 492.
#[test]
fn a_worker_that_waits_for_room_runs_the_delayed_task_that_the_room_needs_when_it_is_due() {
    with_watchdog(|| {
        let (home, abroad) = (pool(1, 64), pool(1, 64));
        let group = abroad.group::<()>().limit(1).capacity(1);
        let (handle, joined) = channel::<JoinHandle<()>>();
        let started = Gate::new();
        let inside = started.clone();
        group.spawn(move || {
            inside.pass();
            joined.recv().unwrap().join().unwrap();
        });
        started.wait_started(1);
        started.open();
        group.spawn(|| ()); // the group is full
        let (spawner, own) = (group.spawner(), home.clone());
        let submits = move || {
            // Due when this worker waits for any room, after its wait for the low-water mark.
            handle.send(own.spawn_after(Duration::from_millis(50), || ()).unwrap()).unwrap();
            spawner.spawn(|| ());
        };
        home.spawn(submits).unwrap().join().unwrap();
        group.wait().unwrap();
        assert_eq!((home.metrics().tasks_succeeded, abroad.metrics().tasks_succeeded), (2, 3));
    });
}
