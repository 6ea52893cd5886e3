//! How fast a worker takes jobs that do nothing, beside loops over the plain client, on one server in one run.
//!
//! A measurement, not a test:
//! `cargo test --release --package workcrew-interop --test nats_throughput -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../tests/nats_common/mod.rs"]
mod nats_common;

use std::thread;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, AckKind, consumer::pull};
use futures::StreamExt;
use nats_common::{Server, pool, queue, wait_until};
use workcrew::nats::{Connection, JobQueue, Worker};

const JOBS: usize = 10_000;
const ROUNDS: usize = 3;
/// Of the worker; the plain loops ask for as many at once.
const SLOTS: usize = 256;

/// How a plain loop acknowledges.
#[derive(Clone, Copy, Debug)]
enum Plain {
    /// It sends the acknowledgement and goes on: what is lost on the way runs twice.
    SendAck,
    /// It waits until the server confirms each, as a worker does, for as many at once.
    ConfirmAck,
}

fn fill(queue: &JobQueue) {
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for number in (part..JOBS).step_by(4) {
                    queue.enqueue("jobs.a", &[7_u8; 100], format!("{:?}-{number}", Instant::now())).unwrap();
                }
            });
        }
    });
}

fn worker(connection: &Connection, queue: &JobQueue) -> Duration {
    let pool = pool(2);
    let worker = Worker::<String>::builder(queue, "worker").slots(SLOTS).build().unwrap();
    let begun = Instant::now();
    let took = thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, |_| Ok(())).unwrap());
        while worker.metrics().jobs_acked < JOBS as u64 {
            thread::sleep(Duration::from_millis(1));
        }
        let took = begun.elapsed();
        worker.drain();
        assert!(run.join().unwrap().drained);
        took
    });
    connection.request("$JS.API.CONSUMER.DELETE.JOBS.worker", "").unwrap();
    took
}

fn plain(url: &str, how: Plain) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(url).await.unwrap();
        let stream = jetstream::new(client.clone()).get_stream("JOBS").await.unwrap();
        let config = pull::Config { durable_name: Some("plain".to_owned()), ..Default::default() };
        let consumer = stream.create_consumer(config).await.unwrap();
        let begun = Instant::now();
        let messages = consumer.stream().max_messages_per_batch(SLOTS).messages().await.unwrap().take(JOBS);
        match how {
            Plain::SendAck => {
                let mut messages = messages;
                while let Some(message) = messages.next().await {
                    message.unwrap().ack().await.unwrap();
                }
                // As for the others, the clock runs until the server has taken them in.
                while consumer.get_info().await.unwrap().num_ack_pending > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            Plain::ConfirmAck => {
                let confirm = |message: Result<jetstream::Message, _>| {
                    let client = client.clone();
                    async move {
                        let reply = message.unwrap().message.reply.unwrap();
                        client.request(reply, AckKind::Ack.into()).await.unwrap();
                    }
                };
                messages.for_each_concurrent(SLOTS, confirm).await;
            }
        }
        let took = begun.elapsed();
        stream.delete_consumer("plain").await.unwrap();
        took
    })
}

#[test]
#[ignore = "it measures"]
fn a_worker_beside_plain_loops() {
    let Some(server) = Server::start() else { return };
    let connection = server.connect(&pool(1));
    let queue = queue(&connection);
    let mut best = [Duration::MAX; 3];
    for round in 0..ROUNDS {
        for place in 0..3 {
            let contender = (place + round) % 3;
            fill(&queue);
            let took = match contender {
                0 => worker(&connection, &queue),
                1 => plain(&server.url(), Plain::ConfirmAck),
                _ => plain(&server.url(), Plain::SendAck),
            };
            wait_until("the queue is empty", || queue.is_empty().unwrap());
            best[contender] = best[contender].min(took);
        }
    }
    let rate = |time: Duration| JOBS as f64 / time.as_secs_f64();
    let [ours, confirmed, sent] = best.map(rate);
    println!("worker: {ours:.0} jobs/s, each confirmed by the server");
    println!(
        "plain loop, confirmed, {SLOTS} at once: {confirmed:.0} jobs/s; the worker makes {:.2} of it",
        ours / confirmed
    );
    println!("plain loop, sent and forgotten: {sent:.0} jobs/s; the worker makes {:.2} of it", ours / sent);
}
