//! The class in which jobs and messages wait for a worker of the pool.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use workcrew::Priority::{self, Background, High, Normal};
use workcrew::WorkerPool;
use workcrew::nats::{Connection, Job, JobOutcome, Subscription, Worker};

use super::nats_common::{DrainAtEnd, LONG, Server, pool, queue, wait_until};
use super::{ACK_WAIT, Gate, Log, builder, drained, enqueue, wait_for_in_hand};

const CLASSES: [Priority; 3] = [High, Normal, Background];

/// A worker of a subject of its own.
fn worker_of(connection: &Connection, class: Priority) -> Worker<String> {
    let name = format!("{class:?}");
    let queue = queue(connection);
    enqueue(&queue, [format!("jobs.{name}").as_str()]);
    let worker = Worker::builder(&queue, &name).ack_wait(ACK_WAIT).subject(format!("jobs.{name}"));
    worker.priority(class).build().unwrap()
}

/// Fault 617.
#[test]
fn jobs_and_batches_wait_for_a_worker_of_the_pool_in_the_class_of_their_worker() {
    let Some(server) = Server::start() else { return };
    for in_batches in [false, true] {
        let (keeper, pool) = (pool(1), pool(1));
        let connection = server.connect(&keeper);
        let (mut gate, log) = (Gate::new(), Log::new());
        pool.execute(gate.waiter()).unwrap(); // the only worker is busy
        let workers = CLASSES.map(|class| worker_of(&connection, class));
        thread::scope(|scope| {
            let _drained = workers.each_ref().map(DrainAtEnd);
            for (worker, class) in workers.iter().zip(CLASSES).rev() {
                let (log, pool) = (log.clone(), &pool);
                scope.spawn(move || match in_batches {
                    false => {
                        let handler = move |_: &Job| {
                            log.push(class);
                            Ok(())
                        };
                        worker.run(pool, handler).unwrap()
                    }
                    true => {
                        let handler = move |_: &[Job]| {
                            log.push(class);
                            vec![JobOutcome::Done]
                        };
                        worker.run_batch(pool, 8, Duration::ZERO, handler).unwrap()
                    }
                });
                wait_until("it is taken", || worker.metrics().jobs_in_flight == 1);
                connection.flush().unwrap(); // after the I/O thread has passed it on
            }
            gate.open_for_good();
            wait_until("all are done", || workers.iter().all(|worker| worker.metrics().jobs_acked == 1));
        });
        assert_eq!(log.entries(), CLASSES, "in batches: {in_batches}");
    }
}

/// Fault 617.
#[test]
fn messages_wait_for_a_worker_of_the_pool_in_the_class_of_their_subscription() {
    let Some(server) = Server::start() else { return };
    let pool = pool(1);
    let connection = server.connect(&pool);
    let mut gate = Gate::new();
    pool.execute(gate.waiter()).unwrap();
    let (sender, order) = channel();
    let subscribe = |class: Priority, sender: Sender<Priority>| -> Subscription {
        let subscription = connection.subscribe(&format!("news.{class:?}")).priority(class);
        subscription.start(move |_| sender.send(class).unwrap()).unwrap()
    };
    let _subscriptions = CLASSES.map(|class| subscribe(class, sender.clone()));
    for (class, queued) in CLASSES.into_iter().rev().zip(1..) {
        connection.publish(&format!("news.{class:?}"), "x").unwrap();
        wait_until("it has come", || pool.metrics().tasks_queued == queued);
        connection.flush().unwrap(); // after the I/O thread has passed it on
    }
    gate.open_for_good();
    let order: Vec<_> = (0..3).map(|_| order.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(order, CLASSES);
}

/// Fault 617.
#[test]
fn a_background_worker_has_as_many_slots_as_workers_may_run_its_jobs_and_keeps_the_others_free() {
    let Some(server) = Server::start() else { return };
    let pool: WorkerPool = WorkerPool::builder().workers(4).background_workers(1).build().unwrap();
    let connection = server.connect(&pool);
    let queue = queue(&connection);
    enqueue(&queue, ["jobs.a"; 6]);
    let worker = Arc::new(builder::<String>(&queue).priority(Background).build().unwrap());
    let mut gate = Gate::new();
    let wait = gate.waiter();
    let handler = move |_: &Job| {
        wait();
        Ok(())
    };
    thread::scope(|scope| {
        let run = scope.spawn(|| worker.run(&pool, handler).unwrap());
        let _drained = DrainAtEnd(&worker);
        wait_for_in_hand(&connection, 1);
        let free: Vec<_> = (0..3).map(|_| pool.spawn(|| ()).unwrap()).collect();
        free.into_iter().for_each(|task| task.join().unwrap());
        assert_eq!((worker.metrics().slots, worker.metrics().jobs_delivered), (1, 1));
        gate.open_for_good();
        wait_until("all are done", || queue.is_empty().unwrap());
        assert!(drained(&worker, run).drained);
    });
    assert_eq!(worker.metrics().jobs_in_flight_max, 1);
}
