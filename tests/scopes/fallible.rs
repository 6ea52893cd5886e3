//! Scopes whose tasks return a `Result`, and tasks that are added only if there is room.

use crate::common::{BlockedWorkers, Counter, assert_counts_add_up, on_grid, pool, quiet_panics};
use workcrew::{CancelReason, GroupError, JoinError, Scope, TrySubmitError};

type Checked = Result<(), String>;

/// Fault 605.
#[test]
fn a_scope_whose_tasks_may_fail_has_values_and_maps() {
    on_grid(|pool| {
        let words = [String::from("so"), String::from("much"), String::from("depends")];
        let ran = Counter::new();
        let ended = pool.scope(|scope| {
            scope.spawn(|| {
                ran.add();
                if words.is_empty() { Err("no words") } else { Ok(()) }
            });
            let first = scope.spawn_value(|| words[0].as_str());
            let lengths: Result<Vec<_>, _> = scope.map(&words, String::len).window(2).collect();
            (first.join().unwrap(), lengths.unwrap())
        });
        assert_eq!(ended.unwrap(), ("so", vec![2, 4, 7]));
        assert_eq!((ran.get(), pool.metrics().tasks_succeeded), (1, 5));
        assert_counts_add_up(&pool);
    });
}

/// Fault 605.
#[test]
fn a_scope_that_only_maps_needs_no_type_and_one_that_may_fail_can_name_it() {
    let pool = pool(2, 8);
    let words = ["a", "bc"];
    let lengths = pool.scope(|scope| scope.map(&words, |word| word.len()).map(Result::unwrap).sum::<usize>());
    assert_eq!(lengths.unwrap(), 3);
    // The map comes first, so the type is named.
    let ended = pool.scope(|scope: &Scope<'_, '_, Checked>| {
        let lengths = scope.map(&words, |word| word.len()).count();
        scope.spawn(move || Err(format!("{lengths} words")));
    });
    assert!(matches!(ended, Err(GroupError::Failed(error)) if error == "2 words"));
}

/// Fault 605.
#[test]
fn a_failure_cancels_the_values_and_the_items_that_have_not_started() {
    on_grid(|pool| {
        let items = [1, 2, 3];
        let ended = pool.scope(|scope| {
            scope.spawn(|| Err("no toner"));
            scope.token().wait();
            let late = scope.spawn_value(|| unreachable!("the scope has ended")).join();
            assert!(matches!(late, Err::<(), _>(JoinError::Cancelled(CancelReason::GroupEnded))));
            for item in scope.map(&items, |_| unreachable!("the scope has ended")) {
                assert!(matches!(item, Err::<(), _>(JoinError::Cancelled(CancelReason::GroupEnded))));
            }
        });
        assert!(matches!(ended, Err(GroupError::Failed("no toner"))));
        assert_counts_add_up(&pool);
    });
}

/// Fault 605.
#[test]
fn an_error_that_is_a_value_cancels_nothing_and_a_panic_belongs_to_its_handle() {
    quiet_panics();
    on_grid(|pool| {
        let ran = Counter::new();
        let ended = pool.scope(|scope| {
            let check = || {
                ran.add();
                Ok::<_, String>(())
            };
            scope.spawn(check);
            let value = scope.spawn_value(|| Err::<(), _>("a value")).join();
            assert!(matches!(value, Ok(Err("a value"))));
            let unlucky = scope
                .spawn_value(|| {
                    if true {
                        panic!("no luck")
                    }
                })
                .join();
            assert!(matches!(unlucky, Err(JoinError::Panicked(_))));
            let items: Vec<_> = scope.map(0..3, |n| if n == 1 { panic!("no luck") } else { n }).collect();
            assert!(items[0].is_ok() && items[1].is_err() && items[2].is_ok());
            scope.spawn(check);
        });
        ended.unwrap();
        assert_eq!(ran.get(), 2);
        // Without its handle, the panic is an error of the scope, as in any other.
        let ended = pool.scope(|scope| {
            drop(scope.spawn_value(|| {
                if true {
                    panic!("no luck")
                }
            }));
            scope.map(0..3, |n| n).for_each(drop);
        });
        assert!(matches!(ended, Err(GroupError::Panicked(_))));
        assert_counts_add_up(&pool);
    });
}

/// Fault 606.
#[test]
fn a_scope_without_room_returns_the_closure_that_borrows() {
    let pool = pool(2, 8);
    let (wedge, ran) = (BlockedWorkers::new(&pool), Counter::new());
    let ended = pool.scope_builder().capacity(1).run(|scope| {
        scope.try_spawn(|| ran.add()).unwrap();
        let full = scope.try_spawn(|| ran.add()).unwrap_err();
        assert_eq!(full.to_string(), "the scope is full");
        assert!(matches!(full, TrySubmitError::Full(_)));
        full.into_inner()(); // it was not run
        assert_eq!(ran.get(), 1);
        drop(wedge);
    });
    ended.unwrap();
    assert_eq!(ran.get(), 2);
    let ended = pool.scope(|scope| {
        scope.cancel();
        let late = scope.try_spawn(|| ran.add()).unwrap_err();
        assert!(late.is_shut_down());
        assert_eq!(late.to_string(), "the scope is cancelled, or its pool is shut down");
    });
    ended.unwrap();
    assert_eq!(ran.get(), 2);
}
