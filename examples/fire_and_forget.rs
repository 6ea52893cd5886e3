//! Fire and forget from synchronous code: a request is answered at once, and the slow rest of it goes to the pool. The
//! queue is bounded, so a burst of requests slows the callers down instead of filling the memory. A job that panics
//! harms no other: the pool's hook is told, and the metrics count it. (The standard library prints the panic as well.)

use std::error::Error;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use workcrew::WorkerPool;

/// A part of the request that the client does not wait for.
fn send_welcome_mail(address: &str) {
    assert!(address.contains('@'), "{address} is no address");
    thread::sleep(Duration::from_millis(5)); // Stands for the mail server.
}

fn main() -> Result<(), Box<dyn Error>> {
    let (report, reports) = channel();
    let pool = WorkerPool::builder()
        .workers(2)
        .queue_capacity(16)
        .thread_name("mailer")
        .on_panic(move |panic| report.send(panic.to_string()).expect("main keeps the receiver until the end"))
        .build()?;

    for address in ["ada@example.org", "grace.example.org", "edsger@example.org"] {
        pool.execute(move || send_welcome_mail(address))?; // Waits only if the queue is full.
        println!("answered the request of {address}");
    }

    pool.shutdown(); // Runs what is queued. Dropping the pool does the same.

    let panic = reports.recv()?;
    println!("reported: {panic}");
    assert!(panic.ends_with("grace.example.org is no address"));

    let metrics = pool.metrics();
    println!("{metrics}");
    assert_eq!((metrics.tasks_submitted, metrics.tasks_succeeded, metrics.tasks_panicked), (3, 2, 1));
    Ok(())
}
