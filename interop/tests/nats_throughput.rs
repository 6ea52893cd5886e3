//! How fast a worker takes jobs that do nothing, beside loops over the plain client, on one server in one run.
//!
//! A measurement, not a test:
//! `cargo test --release --package workcrew-interop --test nats_throughput -- --ignored --nocapture`.
//! `WORKCREW_SLOTS` (default `2,16,64,256`), `WORKCREW_ROUNDS` and `WORKCREW_JOBS` change what is measured.
//!
//! The contenders take turns. A ratio compares two neighbours of one round; the median of all rounds is
//! printed. Processor time is that of this process, so the server's is not counted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../tests/nats_common/mod.rs"]
mod nats_common;

use std::env;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull::BatchConfig;
use async_nats::jetstream::{self, AckKind, consumer::PullConsumer, consumer::pull};
use futures::StreamExt;
use nats_common::{Server, pool, queue, wait_until};
use workcrew::WorkerPool;
use workcrew::nats::{Connection, JobQueue, Worker};

/// How a plain loop works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    /// Two threads with one client: as many jobs as there are slots at once, each confirmed by the server.
    TwoThreads,
    /// One thread with one client for each slot: asks for one job, runs it, waits until the server has confirmed it.
    ThreadForEach,
    /// One thread, as many jobs as there are slots at once, each confirmed by the server.
    OneThread,
    /// One thread that sends the acknowledgement and goes on: what is lost on the way runs twice.
    SendAck,
}

const PLAIN: [Plain; 4] = [Plain::TwoThreads, Plain::ThreadForEach, Plain::OneThread, Plain::SendAck];
/// With more slots there are not as many threads.
const MAX_THREADS: usize = 16;
/// The clock of `/proc` ticks so often in a second.
const TICKS: f64 = 100.0;

/// What a contender needed for one job, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Cost {
    time: f64,
    processor: f64,
}

fn setting(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn processor_time() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
}

fn measure(jobs: usize, work: impl FnOnce()) -> Cost {
    let (begun, before) = (Instant::now(), processor_time());
    work();
    let per_job = |seconds: f64| seconds * 1e6 / jobs as f64;
    Cost { time: per_job(begun.elapsed().as_secs_f64()), processor: per_job(processor_time() - before) }
}

fn fill(queue: &JobQueue, jobs: usize) {
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for number in (part..jobs).step_by(4) {
                    queue.enqueue("jobs.a", &[7_u8; 100], format!("{:?}-{number}", Instant::now())).unwrap();
                }
            });
        }
    });
}

fn worker(connection: &Connection, queue: &JobQueue, slots: usize, jobs: usize) -> Cost {
    let pool = pool(2);
    let worker = Worker::<String>::builder(queue, "worker").slots(slots).build().unwrap();
    let cost = thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
        // The plain loops have their consumer before the clock runs. A worker waits a moment before it makes one.
        while worker.metrics().jobs_delivered == 0 {
            thread::sleep(Duration::from_micros(50));
        }
        let cost = measure(jobs, || {
            while worker.metrics().jobs_acked < jobs as u64 {
                thread::sleep(Duration::from_millis(1));
            }
        });
        worker.drain();
        assert!(run.join().unwrap().drained);
        cost
    });
    connection.request("$JS.API.CONSUMER.DELETE.JOBS.worker", "").unwrap();
    cost
}

async fn consumer(url: &str) -> (async_nats::Client, PullConsumer) {
    let client = async_nats::connect(url).await.unwrap();
    let stream = jetstream::new(client.clone()).get_stream("JOBS").await.unwrap();
    let config = pull::Config { durable_name: Some("plain".to_owned()), ..Default::default() };
    (client, stream.get_or_create_consumer("plain", config).await.unwrap())
}

async fn confirm(client: async_nats::Client, message: async_nats::Message) {
    client.request(message.reply.unwrap(), AckKind::Ack.into()).await.unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Two threads, or one: `slots` jobs at once.
fn concurrent(url: &str, slots: usize, jobs: usize, threads: usize) -> Cost {
    let runtime = if threads == 1 {
        runtime()
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
    };
    let (client, consumer) = runtime.block_on(consumer(url));
    let work = async move {
        let messages = consumer.stream().max_messages_per_batch(slots).messages().await.unwrap().take(jobs);
        let one = |message: Result<jetstream::Message, _>| {
            let confirming = confirm(client.clone(), message.unwrap().message);
            async move { if threads == 1 { confirming.await } else { tokio::spawn(confirming).await.unwrap() } }
        };
        messages.for_each_concurrent(slots, one).await;
    };
    measure(jobs, || runtime.block_on(async { tokio::spawn(work).await.unwrap() }))
}

/// A thread and a client for each slot.
fn thread_for_each(url: &str, slots: usize, jobs: usize) -> Cost {
    let left = Arc::new(AtomicUsize::new(jobs));
    let ready: Vec<_> = (0..slots)
        .map(|_| {
            let runtime = runtime();
            let (client, consumer) = runtime.block_on(consumer(url));
            (runtime, client, consumer)
        })
        .collect();
    measure(jobs, || {
        let threads: Vec<_> = ready
            .into_iter()
            .map(|(runtime, client, consumer)| {
                let left = Arc::clone(&left);
                thread::spawn(move || runtime.block_on(pull_loop(client, consumer, &left)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    })
}

async fn pull_loop(client: async_nats::Client, consumer: PullConsumer, left: &AtomicUsize) {
    let inbox = client.new_inbox();
    let mut messages = client.subscribe(inbox.clone()).await.unwrap();
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let one = BatchConfig { batch: 1, expires: Some(Duration::from_secs(30)), ..BatchConfig::default() };
        consumer.request_batch(one, inbox.clone().into()).await.unwrap();
        confirm(client.clone(), messages.next().await.unwrap()).await;
    }
}

fn send_ack(url: &str, slots: usize, jobs: usize) -> Cost {
    let runtime = runtime();
    let (_client, mut consumer) = runtime.block_on(consumer(url));
    measure(jobs, || {
        runtime.block_on(async {
            let messages = consumer.stream().max_messages_per_batch(slots).messages().await.unwrap();
            let mut messages = messages.take(jobs);
            while let Some(message) = messages.next().await {
                message.unwrap().ack().await.unwrap();
            }
            // As for the others, the clock runs until the server has taken them in.
            while consumer.info().await.unwrap().num_ack_pending > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    })
}

fn plain(connection: &Connection, url: &str, how: Plain, slots: usize, jobs: usize) -> Cost {
    let cost = match how {
        Plain::TwoThreads => concurrent(url, slots, jobs, 2),
        Plain::OneThread => concurrent(url, slots, jobs, 1),
        Plain::ThreadForEach => thread_for_each(url, slots, jobs),
        Plain::SendAck => send_ack(url, slots, jobs),
    };
    connection.request("$JS.API.CONSUMER.DELETE.JOBS.plain", "").unwrap();
    cost
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Returns whether a loop is measured with this number of slots.
fn is_meant(how: Plain, slots: usize) -> bool {
    how != Plain::ThreadForEach || slots <= MAX_THREADS
}

fn compare(server: &Server, (connection, queue): (&Connection, &JobQueue), filler: &JobQueue, slots: usize) {
    let (jobs, rounds) = (setting("WORKCREW_JOBS", 5_000), setting("WORKCREW_ROUNDS", 5));
    let mut costs: Vec<[Option<Cost>; 1 + PLAIN.len()]> = Vec::new();
    for round in 0..rounds {
        let mut of_round = [None; 1 + PLAIN.len()];
        for place in 0..of_round.len() {
            let contender = (place + round) % of_round.len();
            if contender > 0 && !is_meant(PLAIN[contender - 1], slots) {
                continue;
            }
            fill(filler, jobs);
            of_round[contender] = Some(match contender {
                0 => worker(connection, queue, slots, jobs),
                _ => plain(connection, &server.url(), PLAIN[contender - 1], slots, jobs),
            });
            wait_until("the queue is empty", || queue.is_empty().unwrap());
        }
        costs.push(of_round);
    }
    let of = |contender: usize| costs.iter().filter_map(move |round| round[contender]);
    let (rate, processor) = (median(of(0).map(|cost| 1e6 / cost.time)), median(of(0).map(|cost| cost.processor)));
    println!("{slots} slots: {rate:.0} jobs/s, {processor:.0} µs of processor per job");
    for (place, how) in PLAIN.into_iter().enumerate().filter(|(_, how)| is_meant(*how, slots)) {
        let pairs = || of(0).zip(of(place + 1));
        let (theirs, cpu) =
            (median(of(place + 1).map(|cost| 1e6 / cost.time)), median(of(place + 1).map(|c| c.processor)));
        let ratio = median(pairs().map(|(ours, theirs)| theirs.time / ours.time));
        let of_cpu = median(pairs().map(|(ours, theirs)| ours.processor / theirs.processor));
        println!(
            "  {how:?}: {theirs:.0} jobs/s, {cpu:.0} µs; the worker makes {ratio:.2} of it with {of_cpu:.2} of its processor"
        );
    }
}

#[test]
#[ignore = "it measures"]
fn a_worker_beside_plain_loops() {
    let Some(server) = Server::start() else { return };
    // One connection fills the queue, the other works.
    let (filling, working) = (WorkerPool::builder().workers(1).thread_name("filler").build().unwrap(), pool(1));
    let filler = queue(&server.connect(&filling));
    let connection = server.connect(&working);
    let queue = queue(&connection);
    let slots = env::var("WORKCREW_SLOTS").unwrap_or_else(|_| "2,16,64,256".to_owned());
    for slots in slots.split(',') {
        compare(&server, (&connection, &queue), &filler, slots.parse().unwrap());
    }
}
