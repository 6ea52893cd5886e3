//! A thread of the timers that is stuck. It runs no user code but the allocator, so that is where it is held.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{LIMIT, run_child, with_watchdog};
use workcrew::WorkerPool;

/// The system's allocator, which holds what it is told to.
struct Holds;

/// Whether a thread of the timers that gives memory back is held forever.
static ARMED: AtomicBool = AtomicBool::new(false);
/// How many threads are held.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Asks the system, since `thread::current` is no more where a thread is about to end. Neither allocates nor frees.
fn is_thread_of_the_timers() -> bool {
    let mut name = [0; 16];
    let read = File::open("/proc/thread-self/comm").and_then(|mut file| file.read(&mut name));
    read.is_ok_and(|length| name[..length].ends_with(b"-timer\n"))
}

#[global_allocator]
static ALLOCATOR: Holds = Holds;

#[allow(unsafe_code, reason = "an allocator cannot be written without; it passes everything on")]
// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Holds {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if ARMED.load(Ordering::SeqCst) && is_thread_of_the_timers() {
            HELD.fetch_add(1, Ordering::SeqCst);
            loop {
                thread::park();
            }
        }
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Fault 145.
#[test]
fn a_process_with_a_stuck_timer_thread_ends_when_main_returns() {
    let output = run_child("child_with_a_stuck_thread_of_the_timers", &[]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("main returns"), "{output:?}");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn child_with_a_stuck_thread_of_the_timers() {
    with_watchdog(|| {
        let pool = WorkerPool::builder().workers(1).build().unwrap();
        pool.execute_after(Duration::from_millis(1), || ()).unwrap();
        pool.wait_idle();
        ARMED.store(true, Ordering::SeqCst);
        // The thread ends now, and gives back what it ran.
        assert!(pool.shutdown_timeout(LIMIT).drained);
        while HELD.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        drop(pool);
        println!("main returns");
    });
}
