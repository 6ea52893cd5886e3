//! Maps over borrowed items, and scopes with settings.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{self, Counter, Gate, Mutex, assert_counts_add_up, on_grid, pool, quiet_panics, with_watchdog};
use workcrew::{CancelReason, CancellationToken, GroupError, JoinError, Observer, Scope, TaskInfo};

/// Fault 368.
#[test]
fn a_map_over_borrowed_items_yields_results_in_their_order() {
    on_grid(|pool| {
        let words: Vec<String> = (0..300).map(|n| format!("word {n}")).collect();
        let suffix = String::from("!");
        let results = pool.scope(|scope| {
            scope.map(&words, |word| (word.as_str(), word.len() + suffix.len())).collect::<Result<Vec<_>, _>>()
        });
        let expected: Vec<_> = words.iter().map(|word| (word.as_str(), word.len() + 1)).collect();
        assert_eq!(results.unwrap().unwrap(), expected);
        assert_counts_add_up(&pool);
    });
}

/// Fault 368.
#[test]
fn a_map_over_an_endless_source_takes_a_window_of_items() {
    on_grid(|pool| {
        let taken = AtomicUsize::new(0);
        let found = pool.scope(|scope| {
            let source = (0_usize..).inspect(|_| _ = taken.fetch_add(1, Ordering::Relaxed));
            scope.map(source, |n| n * n).window(5).map(Result::unwrap).find(|square| *square > 1_000)
        });
        assert_eq!(found.unwrap(), Some(1_024));
        assert!(taken.load(Ordering::Relaxed) <= 32 + 1 + 5, "{taken:?}");
        assert_counts_add_up(&pool);
    });
}

/// Fault 368.
#[test]
fn a_map_that_is_dropped_cancels_what_has_not_started_and_the_scope_succeeds() {
    on_grid(|pool| {
        let (gate, ran) = (Gate::new(), Counter::new());
        let ended = pool.scope_builder().limit(1).run(|scope| {
            let first = scope.spawn_value(|| gate.pass());
            gate.wait_started(1);
            let mut results = scope.map(0..8, |_| ran.add()).window(8);
            scope.spawn(|| gate.open()); // behind the map, which is to be dropped first
            drop(results.by_ref().take(0));
            let taken = thread::scope(|threads| {
                let waiting = threads.spawn(|| gate.open());
                let first = results.next();
                waiting.join().unwrap();
                first
            });
            taken.unwrap().unwrap();
            drop(results);
            first.join().unwrap();
        });
        ended.unwrap();
        assert!((1..=8).contains(&ran.get()));
        assert_counts_add_up(&pool);
    });
}

/// Fault 368.
#[test]
fn a_panic_of_a_map_is_an_error_in_its_place() {
    quiet_panics();
    on_grid(|pool| {
        let items: Vec<u32> = (0..20).collect();
        let results = pool.scope(|scope| {
            let halve = |n: &u32| if n % 7 == 3 { panic!("no half of {n}") } else { n / 2 };
            scope.map(&items, halve).collect::<Vec<_>>()
        });
        for (n, result) in results.unwrap().into_iter().enumerate() {
            match result {
                Ok(half) => assert_eq!(half as usize, n / 2),
                Err(JoinError::Panicked(panic)) => assert_eq!(panic.message(), Some(&*format!("no half of {n}"))),
                Err(other) => panic!("{other:?}"),
            }
        }
    });
}

/// Fault 368.
#[test]
fn a_map_on_the_only_worker_makes_its_results_itself() {
    with_watchdog(|| {
        let pool = pool(1, 1);
        let words = ["a", "bc", "def"];
        let sum = pool.scope(|scope| {
            scope.spawn_value(|| scope.map(&words, |word| word.len()).map(Result::unwrap).sum::<usize>()).join()
        });
        assert_eq!(sum.unwrap().unwrap(), 6);
    });
}

/// Fault 368.
#[test]
fn a_source_that_is_fed_by_the_results_of_a_map_never_hangs() {
    on_grid(|pool| {
        let (todo, source) = std::sync::mpsc::channel();
        todo.send(1_u32).unwrap();
        let last = pool.scope(|scope| {
            for doubled in scope.map(source, |n| 2 * n) {
                let doubled = doubled.unwrap();
                if doubled > 100 {
                    return doubled;
                }
                todo.send(doubled).unwrap();
            }
            unreachable!("the source does not end")
        });
        assert_eq!(last.unwrap(), 128);
    });
}

/// Fault 363.
#[test]
fn a_body_that_panics_amid_a_map_leaves_no_borrow() {
    quiet_panics();
    on_grid(|pool| {
        let live = AtomicUsize::new(0);
        let run = || {
            pool.scope(|scope| {
                let mut results = scope.map(0..64, |_| {
                    live.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    live.fetch_sub(1, Ordering::SeqCst);
                });
                results.next().unwrap().unwrap();
                panic!("the body");
            })
        };
        let panicked: Result<Result<(), _>, _> = panic::catch_unwind(panic::AssertUnwindSafe(run));
        assert!(panicked.is_err());
        assert_eq!(live.load(Ordering::SeqCst), 0);
        assert_counts_add_up(&pool);
    });
}

/// Fault 64.
#[test]
fn a_body_that_spawns_nothing_needs_only_the_type_of_its_argument() {
    on_grid(|pool| {
        assert_eq!(pool.scope(|_: &Scope| 7).unwrap(), 7);
        assert_eq!(pool.scope_builder().run(|_: &Scope| 8).unwrap(), 8);
    });
}

/// Fault 369.
#[test]
fn a_scope_never_runs_more_tasks_than_its_limit() {
    on_grid(|pool| {
        for limit in [1, 2, 3] {
            let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let (running, most) = (&running, &most);
            let ended = pool.scope_builder().limit(limit).capacity(4).run(|scope| {
                for _ in 0..40 {
                    scope.spawn(move || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
            ended.unwrap();
            assert!(most.load(Ordering::SeqCst) <= limit);
        }
    });
}

/// Fault 369.
#[test]
fn a_scope_with_a_limit_or_a_capacity_of_zero_has_one() {
    on_grid(|pool| {
        let ran = AtomicUsize::new(0);
        let add = || {
            ran.fetch_add(1, Ordering::SeqCst);
        };
        pool.scope_builder().limit(0).run(|scope| (0..3).for_each(|_| scope.spawn(add))).unwrap();
        pool.scope_builder().capacity(0).run(|scope| (0..3).for_each(|_| scope.spawn(add))).unwrap();
        assert_eq!(ran.load(Ordering::SeqCst), 6);
    });
}

/// Fault 369.
#[test]
fn a_deadline_cancels_a_scope_which_still_waits_for_what_runs() {
    on_grid(|pool| {
        let past = Instant::now();
        for (scope, ends) in [
            (pool.scope_builder().timeout(Duration::ZERO), true),
            (pool.scope_builder().deadline(past), true),
            (pool.scope_builder().timeout(Duration::MAX).timeout(Duration::from_millis(1)), true),
            (pool.scope_builder().timeout(Duration::MAX), false),
        ] {
            let (started, ended) = (Counter::new(), Counter::new());
            let result = scope.limit(1).run(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        started.add();
                        if ends {
                            scope.token().wait();
                            assert_eq!(scope.token().reason(), Some(CancelReason::Expired));
                        }
                        ended.add();
                    });
                }
            });
            assert_eq!(matches!(result, Err(GroupError::Cancelled(CancelReason::Expired))), ends, "{result:?}");
            assert_eq!(started.get(), ended.get());
            assert!(if ends { started.get() <= 1 } else { started.get() == 3 });
        }
        assert_counts_add_up(&pool);
    });
}

/// Fault 369.
#[test]
fn a_join_sees_the_deadline_of_its_scope() {
    on_grid(|pool| {
        let gate = Gate::new();
        let ended = pool.scope_builder().limit(1).timeout(Duration::from_millis(5)).run(|scope| {
            scope.spawn(|| gate.pass());
            let waiting = scope.spawn_value(|| ());
            let joined = waiting.join();
            gate.open();
            joined
        });
        assert!(matches!(ended, Err(GroupError::Cancelled(CancelReason::Expired))), "{ended:?}");
    });
}

/// Fault 369.
#[test]
fn a_parent_token_cancels_a_scope_and_a_label_names_its_tasks() {
    struct Labels(std::sync::Arc<Mutex<Vec<Option<String>>>>);
    impl Observer for Labels {
        fn task_submitted(&self, task: &TaskInfo<'_>) {
            self.0.lock().unwrap().push(task.label().map(str::to_owned));
        }
    }
    common::grid(|builder| {
        let labels = std::sync::Arc::default();
        let pool = builder.observer(Labels(std::sync::Arc::clone(&labels))).build().unwrap();
        let parent = CancellationToken::new();
        let scope = pool.scope_builder().parent(&parent).label("hosts");
        scope.clone().run(|scope| scope.spawn(|| ())).unwrap();
        parent.cancel();
        let ended = scope.run(|scope| scope.spawn(|| -> () { panic!("it is cancelled") }));
        assert!(matches!(ended, Err(GroupError::Cancelled(CancelReason::Requested))));
        assert!(labels.lock().unwrap().iter().all(|label| label.as_deref() == Some("hosts")));
    });
}
