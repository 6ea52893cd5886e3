//! Ending a service in time: refuse new work, drain for a while, then cancel what has not started and tell what runs. A
//! report says what was left. Nothing is lost unnoticed: a late submission gets its closure back, a cancelled task says
//! why.

use std::error::Error;
use std::sync::mpsc::channel;
use std::time::Duration;

use workcrew::{CancelReason, JoinError, WorkerPool};

fn main() -> Result<(), Box<dyn Error>> {
    let pool = WorkerPool::builder().workers(1).build()?;

    // A task that would never end by itself. It belongs to a group, so the shutdown reaches it through the token.
    let group = pool.group();
    let token = group.token().clone();
    let (started, start) = channel();
    let (gate, closed_gate) = channel::<()>();
    group.spawn(move || {
        started.send(()).expect("main waits for this");
        while !token.wait_timeout(Duration::from_millis(1)) {} // A piece of work, then a look at the token.
        println!("the running task was told to stop, and puts its things in order");
        closed_gate.recv().expect_err("a gate is dropped, never used");
    });
    start.recv()?;
    let queued = [1, 2, 3].map(|number| pool.spawn(move || number));

    pool.close();
    let late = pool.execute(|| println!("the late closure runs on the thread that submitted it"));
    let late = late.expect_err("the pool is closed");
    println!("submitted after the close: {late}");
    assert!(late.is_shut_down());
    late.into_inner()();

    // The only worker is busy, so nothing of the queue can run before the time is up.
    let report = pool.shutdown_timeout(Duration::from_millis(20));
    println!("first report: {report}");
    assert_eq!((report.drained, report.tasks_cancelled, report.tasks_running), (false, 3, 1));
    for handle in queued {
        assert!(matches!(handle?.join(), Err(JoinError::Cancelled(CancelReason::ShutDown))));
    }

    // What the report has left behind holds up no drop and no second shutdown. To give it more time, wait until the pool
    // is idle; here the task ends in time.
    let report = pool.shutdown_timeout(Duration::from_secs(10));
    println!("second report, at once: {report}");
    assert_eq!(report.tasks_running, 1);
    drop(gate);
    assert!(pool.wait_idle_timeout(Duration::from_secs(10)));
    let report = pool.shutdown_now();
    println!("last report: {report}");
    assert!(report.drained);
    group.wait()?;
    Ok(())
}
