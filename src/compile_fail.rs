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
//! A task of a scope has no value. It writes to what it borrows instead.
//!
//! ```compile_fail,E0271
//! # let pool = workcrew::WorkerPool::new().unwrap();
//! pool.scope(|scope| {
//!     scope.spawn(|| Ok::<i32, ()>(1));
//! });
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
