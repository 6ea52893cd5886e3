//! The names of the pool's threads, as the system shows them.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use common::with_watchdog;
use workcrew::WorkerPool;

/// What the system calls the threads of this process.
fn names() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // A thread may end between the listing and the look.
    tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .map(|n| n.trim_end().to_owned())
        .collect()
}

/// Builds a pool with all its threads and returns their names: what is there now and was not before. The tests here
/// take turns, since all look at the whole process.
fn names_of(base: &str, workers: usize) -> Vec<String> {
    let before = names();
    let pool = WorkerPool::builder().thread_name(base).workers(workers).stack_size(64 << 10).build().unwrap();
    pool.execute_after(Duration::MAX, || ()).unwrap();
    #[cfg(feature = "driver")]
    let _driver = workcrew::driver::Driver::new(&pool, 1).unwrap();
    let all = workers + 1 + usize::from(cfg!(feature = "driver"));
    with_watchdog(|| {
        loop {
            // A thread names itself, soon after it was started; until then it bears the name of the one that started it.
            let mut now = names();
            for name in &before {
                now.iter().position(|new| new == name).map(|place| now.swap_remove(place));
            }
            now.retain(|name| name.contains('-'));
            if now.len() == all {
                return now;
            }
            thread::yield_now();
        }
    })
}

/// Checks that all threads of a pool can be told apart, and that each worker shows its index.
fn check(base: &str, workers: usize) {
    let names = names_of(base, workers);
    let distinct: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(distinct.len(), names.len(), "{base}: {names:?}");
    let suffixes: BTreeSet<&str> = names.iter().map(|name| name.rsplit_once('-').unwrap().1).collect();
    let mut expected: BTreeSet<String> = (0..workers).map(|index| index.to_string()).collect();
    expected.insert("timer".to_owned());
    if cfg!(feature = "driver") {
        expected.insert("io".to_owned());
    }
    assert!(suffixes.iter().copied().eq(expected.iter().map(String::as_str)), "{base}: {names:?}");
    for name in &names {
        let kept = name.rsplit_once('-').unwrap().0;
        assert!(base.starts_with(kept) && kept.len() >= base.len().min(5), "{name} is not named after {base}");
    }
}

/// Fault 146.
#[test]
fn the_system_shows_the_index_of_each_worker_however_long_the_name() {
    for base in [
        "w",
        "workcrew",
        "workcrew-global",
        "image-processing",
        "Größenänderungen",
        "🦀🦀🦀🦀🦀🦀",
        "日本語日本語日本語",
    ] {
        check(base, 12);
    }
    check("image-processing", 1_000);
    // A name in the program is what the system shows.
    let pool = WorkerPool::builder().thread_name("image-processing").workers(1).build().unwrap();
    let name = pool.spawn(|| thread::current().name().map(str::to_owned)).unwrap().join().unwrap();
    assert_eq!(name.as_deref(), Some("image-process-0"));
    drop(pool);
    // The global pool comes last: its threads stay.
    let pool = WorkerPool::global();
    let name = pool.spawn(|| thread::current().name().map(str::to_owned)).unwrap().join().unwrap().unwrap();
    assert!(name.starts_with("workcrew-glob") && names().contains(&name), "{name}");
    // The name of a worker that was added later.
    pool.resize(12).unwrap();
    with_watchdog(|| {
        while !(10..12).all(|index| names().contains(&format!("workcrew-glo-{index}"))) {
            thread::yield_now();
        }
    });
}
