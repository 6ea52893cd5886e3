//! Timers on real pools. What depends on exact times is tested beside the code, by a watch that the tests move on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    BlockedWorkers, Bomb, Counter, DropCounter, Gate, LIMIT, Mutex, assert_counts_add_up, fill, in_threads, on_grid,
    pool, quiet_panics, with_watchdog,
};
use workcrew::{OnDrop, TimerHandle, WorkerPool};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(86_400);
const SHORT: Duration = Duration::from_millis(1);

fn wait_until(done: impl Fn() -> bool) {
    with_watchdog(|| {
        while !done() {
            thread::yield_now();
        }
    });
}

/// Fault 125.
#[test]
fn a_delay_of_nothing_is_over_now_and_one_beyond_the_clock_never() {
    on_grid(|pool| {
        let ran = Counter::new();
        for delay in [Duration::ZERO, Duration::from_nanos(1)] {
            let ran = ran.clone();
            pool.execute_after(delay, move || ran.add()).unwrap();
        }
        pool.wait_idle();
        assert_eq!(ran.get(), 2);
        let never: Vec<_> = [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(u64::MAX / 2)]
            .into_iter()
            .flat_map(|delay| {
                let (a, b, c) = (ran.clone(), ran.clone(), ran.clone());
                [
                    pool.execute_after(delay, move || a.add()).unwrap(),
                    pool.execute_every(delay, move || b.add()).unwrap(),
                    pool.execute_with_fixed_delay(delay, move || c.add()).unwrap(),
                ]
            })
            .collect();
        // One that is due later than they were set shows that the thread has passed over them.
        pool.execute_after(SHORT, || ()).unwrap();
        wait_until(|| pool.metrics().tasks_succeeded == 3);
        assert_eq!(pool.metrics().timers_pending, 9);
        assert!(never.iter().all(TimerHandle::cancel));
        pool.wait_idle();
        assert_eq!((ran.get(), pool.metrics().timers_pending), (2, 0));
        assert_counts_add_up(&pool);
    });
}

#[test]
fn no_task_runs_before_its_time_and_a_wait_for_idle_waits_for_it() {
    on_grid(|pool| {
        let early = Counter::new();
        for milliseconds in [3, 1, 2] {
            let (delay, since, early) = (Duration::from_millis(milliseconds), Instant::now(), early.clone());
            pool.execute_after(delay, move || {
                if since.elapsed() < delay {
                    early.add();
                }
            })
            .unwrap();
        }
        assert_eq!(pool.metrics().tasks_submitted, 3);
        pool.wait_idle();
        assert_eq!((early.get(), pool.metrics().tasks_succeeded), (0, 3));
    });
}

/// Fault 126.
#[test]
fn due_timers_run_in_due_order() {
    let pool = pool(1, 1);
    let wedge = BlockedWorkers::new(&pool);
    let order = Arc::new(Mutex::new(Vec::new()));
    let timer = |delay: u64, name: &'static str| {
        let order = Arc::clone(&order);
        pool.execute_after(Duration::from_millis(delay), move || order.lock().unwrap().push(name)).unwrap()
    };
    let far = timer(86_400_000, "far");
    for (delay, name) in [(60, "third"), (20, "first"), (40, "second")] {
        timer(delay, name);
    }
    wait_until(|| pool.metrics().timers_pending == 1);
    wedge.open();
    assert!(far.cancel());
    pool.wait_idle();
    assert_eq!(*order.lock().unwrap(), ["first", "second", "third"]);
}

/// Fault 133.
#[test]
fn a_full_queue_holds_up_neither_a_due_task_nor_the_timers_behind_it() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let ran = Counter::new();
        let queued = fill(&pool, &ran);
        let timers: Vec<_> = (0..200)
            .map(|timer| {
                let ran = ran.clone();
                pool.execute_after(SHORT * (timer % 3), move || ran.add()).unwrap()
            })
            .collect();
        let counted = ran.clone();
        let ticks = pool.execute_every(SHORT, move || counted.add()).unwrap();
        // All have been handed over, though the queue is full and no worker free.
        wait_until(|| pool.metrics().timers_pending == 0);
        assert_eq!((ran.get(), pool.queue_len()), (0, queued));
        assert!(timers[7].cancel()); // on its way
        wedge.open();
        wait_until(|| ran.get() >= queued + 200);
        assert!(ticks.cancel());
        pool.wait_idle();
        assert!(timers.iter().all(TimerHandle::is_finished));
        assert_counts_add_up(&pool);
    });
}

/// Fault 130.
#[test]
fn a_hundred_thousand_cancelled_timers_leave_nothing_behind() {
    let pool = pool(1, 1);
    let (ran, dropped) = (Counter::new(), Counter::new());
    let timers: Vec<_> = (0..100_000)
        .map(|timer| {
            let (ran, held) = (ran.clone(), DropCounter(dropped.clone()));
            let f = move || {
                ran.add();
                let _ = &held;
            };
            pool.execute_after(LONG + Duration::from_nanos(timer * 7_919 % 100_000), f).unwrap()
        })
        .collect();
    assert_eq!(pool.metrics().timers_pending, 100_000);
    for (cancelled, timer) in timers.iter().enumerate() {
        assert!(timer.cancel());
        assert_eq!(dropped.get(), cancelled + 1);
    }
    assert_eq!((pool.metrics().timers_pending, pool.metrics().tasks_cancelled), (0, 100_000));
    assert!(timers.iter().all(|timer| timer.is_finished() && !timer.cancel()));
    pool.wait_idle();
    assert_eq!(ran.get(), 0);
}

/// A way to end a pool.
type End = fn(&WorkerPool) -> usize;

/// Fault 131.
/// Ways × {delayed, periodic}.
#[test]
fn every_end_of_a_pool_cancels_pending_timers_and_reports_them() {
    let ends: [(End, bool); 4] = [
        (
            |pool| {
                pool.close();
                0
            },
            false,
        ),
        (
            |pool| {
                pool.shutdown();
                0
            },
            false,
        ),
        (|pool| pool.shutdown_timeout(LONG).tasks_cancelled, true),
        (|pool| pool.shutdown_now().tasks_cancelled, true),
    ];
    for (end, reports) in ends {
        on_grid(|pool| {
            let (ran, dropped) = (Counter::new(), Counter::new());
            let closure = || {
                let (ran, held) = (ran.clone(), DropCounter(dropped.clone()));
                move || {
                    ran.add();
                    let _ = &held;
                }
            };
            let delayed = pool.execute_after(LONG, closure()).unwrap();
            let periodic = pool.execute_every(LONG, closure()).unwrap();
            let spaced = pool.execute_with_fixed_delay(LONG, closure()).unwrap();
            let cancelled = end(&pool);
            assert_eq!((cancelled, dropped.get()), (usize::from(reports), 3));
            assert!([&delayed, &periodic, &spaced].iter().all(|timer| timer.is_finished() && !timer.cancel()));
            let refused = pool.execute_after(SHORT, closure()).unwrap_err();
            assert!(refused.is_shut_down() && !refused.is_full() && !refused.is_zero_period());
            refused.into_inner()();
            assert!(pool.execute_every(SHORT, closure()).unwrap_err().is_shut_down());
            pool.shutdown();
            assert_eq!((ran.get(), pool.metrics().tasks_cancelled, pool.metrics().timers_pending), (1, 1, 0));
            assert_counts_add_up(&pool);
        });
    }
}

#[test]
fn a_period_of_nothing_is_refused_and_the_closure_comes_back() {
    on_grid(|pool| {
        let ran = Counter::new();
        let (a, b) = (ran.clone(), ran.clone());
        let refused = pool.execute_every(Duration::ZERO, move || a.add()).unwrap_err();
        assert!(refused.is_zero_period() && !refused.is_shut_down() && !refused.is_full());
        refused.into_inner()();
        let refused = pool.execute_with_fixed_delay(Duration::ZERO, move || b.add()).unwrap_err();
        assert!(refused.is_zero_period());
        assert_eq!((ran.get(), pool.metrics().timers_pending, pool.metrics().tasks_submitted), (1, 0, 0));
    });
}

#[test]
fn a_timer_is_finished_when_nothing_of_it_is_to_come() {
    on_grid(|pool| {
        let (delayed, periodic) = (pool.execute_after(LONG, || ()).unwrap(), pool.execute_every(LONG, || ()).unwrap());
        for timer in [&delayed, &periodic] {
            assert!(!timer.is_finished());
            assert!(timer.cancel());
            assert!(timer.is_finished());
        }
    });
}

#[test]
fn a_report_is_not_drained_when_a_delayed_task_was_cancelled() {
    let pool = pool(2, 4);
    let _timer = pool.execute_after(LONG, || ()).unwrap();
    let report = pool.shutdown_timeout(LONG);
    assert_eq!((report.drained, report.tasks_cancelled, report.tasks_running), (false, 1, 0));
}

#[test]
fn timers_due_before_the_shutdown_run_in_it() {
    on_grid(|pool| {
        let wedge = BlockedWorkers::new(&pool);
        let ran = Counter::new();
        let counted = ran.clone();
        pool.execute_after(Duration::ZERO, move || counted.add()).unwrap();
        wait_until(|| pool.metrics().timers_pending == 0);
        pool.close();
        wedge.open();
        pool.shutdown();
        assert_eq!(ran.get(), 1);
    });
}

/// Notes the names of the threads that drop it.
struct NotesThread(Arc<Mutex<Vec<String>>>);

impl Drop for NotesThread {
    fn drop(&mut self) {
        let name = thread::current().name().unwrap_or("?").to_owned();
        self.0.lock().unwrap().push(name);
    }
}

/// Fault 132.
/// What it does not run cannot kill it.
#[test]
fn the_timer_thread_runs_nothing_foreign_no_destructor_either() {
    quiet_panics();
    let threads = Arc::new(Mutex::new(Vec::new()));
    for on_drop in [OnDrop::Drain, OnDrop::Cancel, OnDrop::Detach] {
        for round in 0..40 {
            let pool = WorkerPool::builder().workers(1).queue_capacity(1).on_drop(on_drop).build().unwrap();
            let observed = Arc::clone(&threads);
            let closure = || {
                let (held, bomb) = (NotesThread(Arc::clone(&observed)), Bomb(Counter::new()));
                move || {
                    let _ = (&held, &bomb);
                    drop(NotesThread(Arc::clone(&held.0)));
                }
            };
            let at = Duration::from_micros(round * 5);
            let _ = pool.execute_after(at, closure()).unwrap();
            let _ = pool.execute_every(at + SHORT / 50, closure()).unwrap();
            let _ = pool.execute_with_fixed_delay(at + SHORT / 50, closure()).unwrap();
            pool.execute_after(at, closure()).unwrap().cancel();
            if round % 2 == 0 {
                wait_until(|| pool.metrics().tasks_submitted > 3);
            }
        }
    }
    wait_until(|| threads.lock().unwrap().len() >= 3 * 40 * 4);
    let threads = threads.lock().unwrap();
    let on_timer = threads.iter().filter(|name| name.ends_with("-timer")).count();
    assert_eq!(on_timer, 0, "of {}", threads.len());
}

#[test]
fn a_timer_that_panics_continues_and_each_run_has_its_own_outcome() {
    quiet_panics();
    on_grid(|pool| {
        let runs = Counter::new();
        let counted = runs.clone();
        let timer = pool
            .execute_every(Duration::from_micros(100), move || {
                counted.add();
                assert!(counted.get().is_multiple_of(2), "every other run");
            })
            .unwrap();
        wait_until(|| runs.get() >= 6);
        assert!(timer.cancel());
        pool.wait_idle();
        let metrics = pool.metrics();
        assert_eq!(metrics.tasks_submitted as usize, runs.get());
        assert_eq!(metrics.tasks_panicked as usize, runs.get().div_ceil(2));
        assert_counts_add_up(&pool);
    });
}

#[test]
fn runs_of_one_timer_never_overlap() {
    let pool = pool(8, 8);
    let (inside, overlaps, runs) = (Counter::new(), Counter::new(), Counter::new());
    let (a, b, c, gate) = (inside.clone(), overlaps.clone(), runs.clone(), Mutex::new(()));
    let timer = pool
        .execute_every(Duration::from_micros(10), move || {
            match gate.try_lock() {
                Some(_alone) => (0..100).for_each(|_| thread::yield_now()),
                None => b.add(),
            }
            a.add();
            c.add();
        })
        .unwrap();
    wait_until(|| runs.get() >= 50);
    timer.cancel();
    pool.wait_idle();
    assert_eq!((overlaps.get(), inside.get()), (0, runs.get()));
}

#[test]
fn a_timer_cancelled_by_its_own_run_is_over_and_its_closure_goes_with_the_run() {
    on_grid(|pool| {
        let (runs, dropped) = (Counter::new(), Counter::new());
        let handle: Arc<OnceLock<TimerHandle>> = Arc::default();
        let (counted, held, own) = (runs.clone(), DropCounter(dropped.clone()), Arc::clone(&handle));
        let ready = Gate::new();
        let set = ready.clone();
        let timer = pool
            .execute_every(Duration::from_micros(50), move || {
                set.pass();
                let _ = &held;
                counted.add();
                assert!(own.get().unwrap().cancel());
                assert!(own.get().unwrap().is_finished());
            })
            .unwrap();
        assert!(handle.set(timer).is_ok());
        ready.open();
        wait_until(|| dropped.get() == 1);
        pool.wait_idle();
        assert_eq!((runs.get(), pool.metrics().timers_pending, pool.metrics().tasks_succeeded), (1, 0, 1));
    });
}

#[test]
fn timers_can_be_set_by_timers_and_by_a_pool_of_one_worker() {
    on_grid(|pool| {
        fn chain(pool: &WorkerPool, left: u32, ran: &Counter) {
            ran.add();
            if left > 0 {
                let (inner, ran) = (pool.clone(), ran.clone());
                pool.execute_after(Duration::from_micros(10), move || chain(&inner, left - 1, &ran)).unwrap();
            }
        }
        let ran = Counter::new();
        chain(&pool, 20, &ran);
        pool.wait_idle();
        assert_eq!(ran.get(), 21);
    });
}

#[test]
fn a_dropped_handle_lets_the_timer_go_on() {
    let pool = pool(1, 1);
    let (sender, ticks) = channel();
    drop(pool.execute_every(SHORT, move || sender.send(()).unwrap_or(())).unwrap());
    with_watchdog(|| assert_eq!(ticks.iter().take(3).count(), 3));
}

#[test]
fn a_pool_may_be_dropped_by_its_own_timer() {
    with_watchdog(|| {
        let pool = pool(1, 1);
        let (sender, done) = channel();
        let own = Mutex::new(Some(pool.clone()));
        pool.execute_every(SHORT, move || {
            drop(own.lock().unwrap().take());
            sender.send(()).unwrap_or(());
        })
        .unwrap();
        drop(pool);
        assert!(done.iter().count() >= 1); // until the closure is gone
    });
}

#[test]
fn concurrent_setting_cancelling_and_shutdown_lose_no_timer() {
    // Each delayed task runs, is cancelled or is returned, exactly once. The metrics agree.
    for round in 0..60 {
        with_watchdog(|| {
            let pool = pool(2, 2);
            let (ran, dropped, made) = (Counter::new(), Counter::new(), Counter::new());
            in_threads(|threads| {
                for setter in 0..3_u64 {
                    let (pool, ran, dropped, made) = (&pool, &ran, &dropped, &made);
                    threads.spawn(move || {
                        for timer in 0..40_u64 {
                            let (ran, held) = (ran.clone(), DropCounter(dropped.clone()));
                            made.add();
                            let f = move || {
                                ran.add();
                                drop(held);
                            };
                            let set = pool.execute_after(Duration::from_micros(timer * 7 % 60 * setter), f);
                            if let (Ok(timer), true) = (set, timer % 3 == 0) {
                                timer.cancel();
                            }
                        }
                    });
                }
                threads.spawn(|| {
                    (0..round * 5).for_each(|_| thread::yield_now());
                    pool.shutdown_now();
                });
            });
            assert_eq!(pool.shutdown_timeout(LIMIT).tasks_running, 0);
            let metrics = pool.metrics();
            assert_eq!((dropped.get(), made.get()), (120, 120));
            assert_eq!(metrics.tasks_succeeded as usize, ran.get());
            assert_eq!((metrics.tasks_queued, metrics.tasks_running, metrics.timers_pending), (0, 0, 0));
            assert_counts_add_up(&pool);
        });
    }
}

#[test]
fn a_periodic_timer_that_is_due_at_the_end_of_the_pool_ends_with_it() {
    // The model `timers_and_shutdown` finds the one schedule; here many rounds come close to it.
    with_watchdog(|| {
        for round in 0..100 {
            let pool = pool(1, 1);
            let dropped = Counter::new();
            let held = DropCounter(dropped.clone());
            let timer = pool.execute_every(Duration::from_nanos(1), move || {
                let _held = &held;
            });
            (0..round % 50).for_each(|_| thread::yield_now());
            pool.shutdown();
            let timer = timer.unwrap();
            assert!(timer.is_finished(), "round {round}");
            assert_eq!(dropped.get(), 1, "the closure is freed, though the handle lives, round {round}");
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_hundred_thousand_pending_timers_cost_no_time_and_their_thread_ends_with_the_pool() {
    let ticks = |thread: &str| -> Option<u64> {
        std::fs::read_dir("/proc/self/task").unwrap().find_map(|task| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
            let field = |index: usize| rest.split_whitespace().nth(index)?.parse::<u64>().ok();
            (name == thread).then(|| Some(field(11)? + field(12)?))?
        })
    };
    let pool = WorkerPool::builder().workers(1).thread_name("lots").build().unwrap();
    assert_eq!(ticks("lots-timer"), None, "the thread starts with the first timer");
    for timer in 0..100_000 {
        pool.execute_after(LONG + Duration::from_nanos(timer), || ()).unwrap();
    }
    wait_until(|| ticks("lots-timer").is_some());
    let before = ticks("lots-timer").unwrap();
    thread::sleep(Duration::from_millis(300)); // what is measured is what it does while nothing happens
    assert_eq!(ticks("lots-timer"), Some(before));
    pool.shutdown();
    assert_eq!(ticks("lots-timer"), None);
}
