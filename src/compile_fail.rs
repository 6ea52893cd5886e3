//! Programs that must not compile. Each differs in one thing from a program that does.
//!
//! A task of a scope cannot borrow what the body owns.
//!
//! ```compile_fail,E0373
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! pool.scope(|scope| {
//!     let inside = 1;
//!     scope.spawn(|| assert_eq!(inside, 1));
//! });
//! ```
//!
//! A task of a scope cannot borrow what another task owns.
//!
//! ```compile_fail,E0373
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! pool.scope(|scope| {
//!     scope.spawn(|| {
//!         let inside = 1;
//!         scope.spawn(|| assert_eq!(inside, 1));
//!     });
//! });
//! ```
//!
//! Two tasks of a scope cannot write to the same variable.
//!
//! ```compile_fail,E0499
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let mut count = 0;
//! pool.scope(|scope| {
//!     scope.spawn(|| count += 1);
//!     scope.spawn(|| count += 1);
//! });
//! ```
//!
//! The body of a scope cannot read what a task writes.
//!
//! ```compile_fail,E0503
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let mut count = 0;
//! pool.scope(|scope| {
//!     scope.spawn(|| count += 1);
//!     assert!(count < 2);
//! });
//! ```
//!
//! A value that a task borrows cannot be moved before the scope ends.
//!
//! ```compile_fail,E0505
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let text = String::new();
//! pool.scope(|scope| {
//!     scope.spawn(|| assert!(text.is_empty()));
//!     drop(text);
//! });
//! ```
//!
//! A scope cannot escape from its body.
//!
//! ```compile_fail,E0521
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let mut escaped: Option<&workcrew::Scope<'_, '_, ()>> = None;
//! pool.scope(|scope| {
//!     escaped = Some(scope);
//! });
//! ```
//!
//! A task of a scope cannot capture what is not `Send`.
//!
//! ```compile_fail,E0277
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let shared = std::rc::Rc::new(1);
//! pool.scope(|scope| {
//!     scope.spawn(|| assert_eq!(*shared, 1));
//! });
//! ```
//!
//! A task of a scope that is spawned by `spawn` has no value: `spawn_value` is for that.
//!
//! ```compile_fail,E0277
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! pool.scope(|scope| {
//!     scope.spawn(|| Ok::<i32, ()>(1));
//! });
//! ```
//!
//! A handle cannot leave the scope of its task as the value of the body.
//!
//! ```compile_fail
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let handle = pool.scope(|scope| scope.spawn_value(|| 1)).unwrap();
//! ```
//!
//! A handle cannot leave the scope of its task through what the body borrows.
//!
//! ```compile_fail,E0521
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let mut escaped: Option<workcrew::ScopedHandle<'_, i32>> = None;
//! pool.scope(|scope| {
//!     escaped = Some(scope.spawn_value(|| 1));
//! });
//! ```
//!
//! A handle cannot leave the scope of its task in a task of another pool.
//!
//! ```compile_fail,E0521
//! # use workcrew::WorkerPool;
//! # let (pool, other) = (WorkerPool::new().unwrap(), WorkerPool::new().unwrap());
//! pool.scope(|scope| {
//!     let handle = scope.spawn_value(|| 1);
//!     other.execute(move || drop(handle));
//! });
//! ```
//!
//! The value of a task of a scope cannot borrow what the body owns.
//!
//! ```compile_fail,E0373
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! pool.scope(|scope| {
//!     let inside = 1;
//!     scope.spawn_value(|| &inside).join();
//! });
//! ```
//!
//! The value of a task of a scope cannot borrow what the task owns.
//!
//! ```compile_fail,E0515
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! pool.scope(|scope| {
//!     scope.spawn_value(|| {
//!         let inside = 1;
//!         &inside
//!     }).join();
//! });
//! ```
//!
//! The value of a task of a scope must be `Send`.
//!
//! ```compile_fail,E0277
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! pool.scope(|scope| {
//!     scope.spawn_value(|| std::rc::Rc::new(1)).join();
//! });
//! ```
//!
//! A value that a task borrows cannot be moved while its handle may be joined.
//!
//! ```compile_fail,E0505
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let text = String::new();
//! pool.scope(|scope| {
//!     let handle = scope.spawn_value(|| text.len());
//!     drop(text);
//!     handle.join();
//! });
//! ```
//!
//! A map of a scope cannot borrow what the body owns, and cannot leave the scope.
//!
//! ```compile_fail,E0597
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! pool.scope(|scope| {
//!     let items = [1, 2];
//!     scope.map(&items, |n| n + 1).count();
//! });
//! ```
//!
//! ```compile_fail
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let items = [1, 2];
//! let squares = pool.scope(|scope| scope.map(&items, |n| n * n)).unwrap();
//! ```
//!
//! All of this holds for a scope whose tasks return a `Result`, too.
//!
//! ```compile_fail,E0521
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let mut escaped: Option<workcrew::ScopedHandle<'_, i32>> = None;
//! pool.scope(|scope| {
//!     scope.spawn(|| Ok::<(), ()>(()));
//!     escaped = Some(scope.spawn_value(|| 1));
//! });
//! ```
//!
//! ```compile_fail,E0373
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! pool.scope(|scope| {
//!     scope.spawn(|| Ok::<(), ()>(()));
//!     let inside = 1;
//!     scope.spawn_value(|| &inside).join();
//! });
//! ```
//!
//! ```compile_fail,E0597
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! pool.scope(|scope| {
//!     scope.spawn(|| Ok::<(), ()>(()));
//!     let items = [1, 2];
//!     scope.map(&items, |n| n + 1).count();
//! });
//! ```
//!
//! ```compile_fail,E0505
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let text = String::new();
//! pool.scope(|scope| {
//!     let added = scope.try_spawn(|| assert!(text.is_empty()));
//!     drop(text);
//! });
//! ```
//!
//! The closure of a periodic timer returns `()` or a `ControlFlow`.
//!
//! ```compile_fail,E0277
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! pool.execute_every(std::time::Duration::from_secs(1), || 1);
//! ```
//!
//! A job cannot borrow.
//!
//! ```compile_fail,E0373
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let text = String::new();
//! pool.execute(|| assert!(text.is_empty()));
//! ```
//!
//! A job cannot capture what is not `Send`.
//!
//! ```compile_fail,E0277
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let shared = std::rc::Rc::new(1);
//! pool.execute(move || assert_eq!(*shared, 1));
//! ```
//!
//! A task cannot return what is not `Send`.
//!
//! ```compile_fail,E0277
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let handle = pool.spawn(|| std::rc::Rc::new(1));
//! ```
//!
//! A handle can be joined only once.
//!
//! ```compile_fail,E0382
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let handle = pool.spawn(|| 1).unwrap();
//! handle.join();
//! handle.join();
//! ```
//!
//! A group is consumed by waiting for it.
//!
//! ```compile_fail,E0382
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let group = pool.group();
//! group.spawn(|| ());
//! group.wait();
//! group.spawn(|| ());
//! ```
//!
//! The tasks of a group all return one type.
//!
//! ```compile_fail,E0308
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let group = pool.group();
//! group.spawn(|| ());
//! group.spawn(|| Ok::<(), ()>(()));
//! ```
//!
//! A task of a group returns `()` or a `Result`.
//!
//! ```compile_fail,E0277
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let group = pool.group();
//! group.spawn(|| 1);
//! ```
//!
//! A group cannot borrow.
//!
//! ```compile_fail,E0373
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let text = String::new();
//! let group = pool.group();
//! group.spawn(|| assert!(text.is_empty()));
//! ```
//!
//! A pool cannot be dropped while its map is in use.
//!
//! ```compile_fail,E0505
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let squares = pool.map(0..3, |n| n * n);
//! drop(pool);
//! squares.count();
//! ```
//!
//! A scope cannot be awaited: forgetting its future would let tasks outlive what they borrow.
//!
//! ```compile_fail,E0277
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! async { pool.scope(|_| ()).await };
//! ```
//!
//! A task that waits for room as a future cannot borrow.
//!
//! ```compile_fail,E0373
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let text = String::new();
//! let submission = pool.spawn_async(|| assert!(text.is_empty()));
//! ```
//!
//! A task of a group cannot own the group. It owns a spawner instead.
//!
//! ```compile_fail,E0505
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let group = pool.group();
//! group.spawn(move || group.spawn(|| ()));
//! ```
//!
//! A task of a group cannot borrow the group.
//!
//! ```compile_fail,E0373
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let group = pool.group();
//! group.spawn(|| group.spawn(|| ()));
//! ```
//!
//! `execute` takes no async closure, whose future would not run.
//!
//! ```compile_fail,E0271
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! pool.execute(async || ());
//! ```
//!
//! A pool runs closures and not futures.
//!
//! ```compile_fail,E0277
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! pool.spawn(async { 1 });
//! ```
//!
//! `try_map` takes a function that returns a `Result`; `map` takes any other.
//!
//! ```compile_fail,E0308
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let squares = pool.try_map(0..3, |n| n * n);
//! ```
//!
//! Closures with `?` need the type of their error.
//!
//! ```compile_fail,E0282
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! let group = pool.group();
//! group.spawn(|| {
//!     std::fs::metadata("src")?;
//!     Ok(())
//! });
//! ```
