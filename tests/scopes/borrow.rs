//! Borrowing: what tasks may borrow, and when the borrow ends.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::common::{self, Mutex, assert_counts_add_up, join_all, on_grid};
use workcrew::Scope;

#[test]
fn tasks_borrow_and_the_body_returns_a_value() {
    on_grid(|pool| {
        let words = ["so", "much", "depends"];
        let mut lengths = [0; 3];
        let value = pool.scope(|scope| {
            for (length, word) in lengths.iter_mut().zip(&words) {
                scope.spawn(move || *length = word.len());
            }
            "value"
        });
        assert_eq!(value.unwrap(), "value");
        assert_eq!(lengths, [2, 4, 7]);
    });
}

/// Fault 64.
#[test]
fn a_scope_without_tasks_returns_its_value() {
    on_grid(|pool| assert_eq!(pool.scope::<(), _, _>(|_| 5).unwrap(), 5));
}

#[test]
fn tasks_spawn_on_the_scope_they_belong_to() {
    on_grid(|pool| {
        let count = AtomicUsize::new(0);
        let counted = &count;
        pool.scope(|scope| {
            for _ in 0..4 {
                scope.spawn(move || {
                    for _ in 0..50 {
                        scope.spawn(move || {
                            counted.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        })
        .unwrap();
        assert_eq!(count.into_inner(), 200);
    });
}

/// From rayon's `scope_divide_and_conquer`.
#[test]
fn halves_of_halves_are_summed_by_tasks_that_spawn_tasks() {
    fn sum<'scope>(scope: &'scope Scope<'scope, '_, ()>, part: &'scope [usize], total: &'scope AtomicUsize) {
        if part.len() <= 10 {
            total.fetch_add(part.iter().sum(), Ordering::Relaxed);
            return;
        }
        let (left, right) = part.split_at(part.len() / 2);
        scope.spawn(move || sum(scope, left, total));
        scope.spawn(move || sum(scope, right, total));
    }
    on_grid(|pool| {
        let (numbers, total): (Vec<usize>, _) = ((0..2_000).collect(), AtomicUsize::new(0));
        pool.scope(|scope| sum(scope, &numbers, &total)).unwrap();
        assert_eq!(total.into_inner(), 1_999 * 1_000);
    });
}

/// From rayon's `scope_mixed_lifetime_scope`: what the inner scope borrows from the outer one outlives both.
#[test]
fn an_inner_scope_borrows_from_the_outer_scope_and_its_own_frame() {
    on_grid(|pool| {
        let outer_sum = AtomicUsize::new(0);
        pool.scope(|scope| {
            let (pool, outer_sum) = (&pool, &outer_sum);
            for n in 1..=4 {
                scope.spawn(move || {
                    let parts = [n, 10 * n];
                    let inner_sum = AtomicUsize::new(0);
                    pool.scope(|inner| {
                        for part in &parts {
                            let inner_sum = &inner_sum;
                            inner.spawn(move || {
                                inner_sum.fetch_add(*part, Ordering::SeqCst);
                                outer_sum.fetch_add(1, Ordering::SeqCst);
                            });
                        }
                    })
                    .unwrap();
                    assert_eq!(inner_sum.into_inner(), 11 * n);
                });
            }
        })
        .unwrap();
        assert_eq!(outer_sum.into_inner(), 8);
    });
}

#[test]
fn closures_of_every_size_and_alignment_borrow_and_run() {
    #[repr(align(128))]
    #[derive(Clone, Copy)]
    struct Aligned(usize);
    on_grid(|pool| {
        let sum = AtomicUsize::new(0);
        let add = |n: usize| {
            sum.fetch_add(n, Ordering::SeqCst);
        };
        let (add, words, aligned) = (&add, [1_usize; 100], Aligned(1_000));
        let (one, two, three) = (&words[0], &words[1], &words[2]);
        pool.scope(|scope| {
            scope.spawn(|| ()); // captures nothing
            scope.spawn(move || add(*one));
            scope.spawn(move || add(*one + *two));
            scope.spawn(move || add(*one + *two + *three));
            scope.spawn(move || add(words.iter().sum()));
            scope.spawn(move || {
                let aligned = &aligned;
                assert_eq!(std::ptr::from_ref(aligned).addr() % 128, 0);
                add(aligned.0);
            });
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 1 + 2 + 3 + 100 + 1_000);
    });
}

#[test]
fn a_task_that_leaks_its_captures_does_not_extend_the_borrow() {
    on_grid(|pool| {
        let mut text = String::from("before");
        pool.scope(|scope| {
            let borrowed = &mut text;
            scope.spawn(move || {
                borrowed.push_str(" and after");
                let _never_dropped = std::mem::ManuallyDrop::new(borrowed);
            });
        })
        .unwrap();
        text.push('!');
        assert_eq!(text, "before and after!");
    });
}

#[test]
fn the_borrow_ends_with_the_scope_however_the_tasks_end() {
    common::quiet_panics();
    on_grid(|pool| {
        for way in 0..4 {
            let mut log = Vec::new();
            let shared = Mutex::new(&mut log);
            let _ = pool.scope(|scope| {
                for n in 0..6 {
                    let shared = &shared;
                    scope.spawn(move || {
                        shared.lock().unwrap().push(n);
                        match way {
                            0 => Ok(()),
                            1 => Err("fails"),
                            2 => panic!("panics"),
                            _ => {
                                scope.cancel();
                                Ok(())
                            }
                        }
                    });
                }
            });
            let seen = log.len();
            log.push(99); // the scope's borrow is over
            assert!(seen >= 1 && log.len() == seen + 1);
        }
        pool.wait_idle();
        assert_counts_add_up(&pool);
    });
}

#[test]
fn threads_of_a_standard_scope_may_each_open_a_scope_of_the_pool() {
    on_grid(|pool| {
        let total = AtomicUsize::new(0);
        thread::scope(|threads| {
            let threads = [(); 3].map(|()| {
                threads.spawn(|| {
                    let mine = AtomicUsize::new(0);
                    pool.scope(|scope| {
                        for n in 0..20 {
                            let mine = &mine;
                            scope.spawn(move || {
                                mine.fetch_add(n, Ordering::SeqCst);
                            });
                        }
                    })
                    .unwrap();
                    total.fetch_add(mine.into_inner(), Ordering::SeqCst);
                })
            });
            join_all(threads);
        });
        assert_eq!(total.into_inner(), 3 * 190);
    });
}
