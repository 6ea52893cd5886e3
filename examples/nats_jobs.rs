//! Jobs shared by as many processes as are started, on a NATS server with JetStream (`nats-server -js`):
//!
//! ```text
//! cargo run --features nats --example nats_jobs -- enqueue 1000
//! cargo run --features nats --example nats_jobs -- work      # in two terminals; Ctrl-C drains, kill -9 loses nothing
//! ```

use std::error::Error;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use workcrew::WorkerPool;
use workcrew::nats::{Connection, Job, JobQueue, Worker};
use workcrew::retry::RetryPolicy;

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let pool = WorkerPool::builder().workers(4).build()?;
    let connection = Connection::builder(url).observer(|event| eprintln!("{event}")).connect(&pool)?;
    let queue = JobQueue::builder(&connection, "IMAGES").subject("images.*").max_jobs(100_000).open()?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["enqueue", number] => enqueue(&queue, number.parse()?),
        ["work"] => work(&pool, &queue),
        _ => Err("usage: nats_jobs enqueue NUMBER | nats_jobs work".into()),
    }
}

/// Each job is stored when `enqueue` returns. The id keeps one that is enqueued twice from being stored twice.
fn enqueue(queue: &JobQueue, number: u32) -> Result<(), Box<dyn Error>> {
    let batch = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    for image in 1..=number {
        queue.enqueue("images.resize", image.to_string().as_str(), format!("{batch}-{image}"))?;
    }
    println!("{number} jobs enqueued; {} in the queue, {} dead", queue.len()?, queue.dead_letters_len()?);
    Ok(())
}

fn work(pool: &WorkerPool, queue: &JobQueue) -> Result<(), Box<dyn Error>> {
    let policy = RetryPolicy::exponential().base_delay(Duration::from_millis(200)).max_attempts(3);
    let worker = Worker::builder(queue, "resizer").retry(policy).ack_wait(Duration::from_secs(5)).build()?;
    let told_to_end = worker.clone();
    ctrlc::set_handler(move || told_to_end.drain())?;
    let (shown, progress) = (worker.clone(), queue.clone());
    pool.execute_every(Duration::from_secs(1), move || {
        println!("{}; {:?} in the queue", shown.metrics(), progress.len().ok());
    })?;
    let report = worker.run(pool, resize)?;
    println!("{report:?}: {}", worker.metrics());
    Ok(())
}

/// May be called twice for one job, when a process or the server dies: resizing twice does no harm.
fn resize(job: &Job) -> Result<(), Box<dyn Error>> {
    let image: u32 = job.text().ok_or("no text")?.parse()?;
    thread::sleep(Duration::from_millis(20)); // the work
    if image.is_multiple_of(100) && job.attempt().number() == 1 { Err("out of memory".into()) } else { Ok(()) }
}
