//! Prints what a pool does when the process gets SIGUSR1, as a JVM prints its threads on SIGQUIT.
//!
//! ```sh
//! cargo run -p workcrew-interop --example snapshot_on_signal -- 60   # seconds until it ends
//! kill -USR1 <the number that it prints>
//! ```
//!
//! A signal handler may do next to nothing, so a thread of its own waits for the signal. It is no
//! worker: it answers while all workers are stuck.

use std::error::Error;
use std::time::Duration;
use std::{env, io, process, thread};

use tokio::signal::unix::{Signal, SignalKind, signal};
use workcrew::WorkerPool;

/// Prints a snapshot of the pool at each signal, until the process ends.
fn print_snapshots(pool: &WorkerPool) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // From here on the signal no longer ends the process.
    let mut signals = runtime.block_on(async { signal(SignalKind::user_defined1()) })?;
    let pool = pool.downgrade(); // this thread does not keep the pool open
    thread::Builder::new().name("snapshots".to_owned()).spawn(move || {
        while runtime.block_on(Signal::recv(&mut signals)).is_some() {
            match pool.upgrade() {
                Some(pool) => println!("{}", pool.snapshot()),
                None => println!("the pool has ended"),
            }
        }
    })?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = env::args().nth(1).map_or(Ok(60), |text| text.parse())?;
    let pool = WorkerPool::builder().workers(2).thread_name("mail").build()?;
    print_snapshots(&pool)?;
    for _ in 0..5 {
        // Something that takes long, such as a server that does not answer.
        pool.task().label("send").execute(move |_| thread::sleep(Duration::from_secs(seconds)))?;
    }
    println!("kill -USR1 {}", process::id());
    println!("{}", pool.shutdown_timeout(Duration::from_secs(seconds)));
    Ok(())
}
