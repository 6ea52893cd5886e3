//! What do events and timers cost, beside the alternatives?
//!
//! `taskset -c 0 cargo bench --bench events` runs all threads on one CPU. The candidates take
//! samples in turn for some rounds in one process; a figure is the median over the rounds. An
//! argument selects the workloads whose names contain it. Without `--bench`, which cargo adds, each
//! runs once, small.
//!
//! The peers do less. `bus` and the channels have a thread for each subscriber, and neither
//! receipts, errors, panic handling nor shutdown. `DelayQueue` belongs to one thread and calls
//! nothing.
//!
//! For an order of magnitude: watermill, in Go, states 318,686 messages published and 137,239
//! received per second through its in-memory `GoChannel`, on 16 CPUs of another machine (README of
//! its benchmark, 1 November 2024). That is some 3,100 and 7,300 ns for each message.

use std::env;
use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use scheduled_thread_pool::ScheduledThreadPool;
use tokio_util::time::DelayQueue;
use workcrew::WorkerPool;
use workcrew::events::{EventBus, Subscription};

/// Places in each mailbox, channel and queue.
const CAPACITY: usize = 1024;
const WORKERS: usize = 2;
/// Rounds of a workload.
const ROUNDS: usize = 7;

/// An event that is shared, as real ones are.
struct Event(u64);

fn handle(event: &Event) {
    black_box(event.0);
}

/// One question, and the candidates that are compared.
struct Workload {
    name: String,
    question: &'static str,
    steps: usize,
    candidates: Vec<(&'static str, Candidate)>,
}

/// Runs the given number of steps, and returns when all have ended.
type Candidate = Box<dyn Fn(usize)>;

fn main() {
    let (options, selections): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|argument| argument.starts_with('-'));
    let is_bench = options.iter().any(|option| option == "--bench");
    let is_selected = |name: &str| selections.is_empty() || selections.iter().any(|part| name.contains(part.as_str()));
    let workloads = [publish(1), publish(10), publish(100), ordered(), timers()];
    for Workload { name, question, steps, candidates } in workloads {
        if !is_selected(&name) {
            continue;
        }
        let (steps, rounds) = if is_bench { (steps, ROUNDS) } else { (steps / 1_000, 1) };
        println!("{name}: {question} ({steps} steps, {rounds} rounds)");
        let mut times = vec![Vec::new(); candidates.len()];
        for first in 0..rounds {
            for index in (0..candidates.len()).map(|index| (index + first) % candidates.len()) {
                let started = Instant::now();
                (candidates[index].1)(steps);
                times[index].push(started.elapsed().as_nanos() as f64 / steps as f64);
            }
        }
        for ((candidate, _), times) in candidates.iter().zip(&mut times) {
            times.sort_by(f64::total_cmp);
            println!("  {candidate:24} {:9.0} ns ({:.0} to {:.0})", times[rounds / 2], times[0], times[rounds - 1]);
        }
    }
}

/// How the bus is used.
#[derive(Clone, Copy)]
enum How {
    Ordered,
    Concurrent,
    Synchronous,
}

/// Publishes `steps / subscribers` events and waits until all are handled.
fn workcrew(subscribers: usize, how: How) -> Candidate {
    let pool = WorkerPool::builder().workers(WORKERS).queue_capacity(CAPACITY).build().expect("threads start");
    let bus = EventBus::new(&pool);
    let subscribe = |_| {
        let subscription = bus.subscription().mailbox_capacity(CAPACITY);
        match how {
            How::Ordered => subscription.handle(handle),
            How::Concurrent => subscription.concurrent(WORKERS).handle(handle),
            How::Synchronous => subscription.synchronous().handle(handle),
        }
    };
    let guards: Vec<Subscription> = (0..subscribers).map(subscribe).collect();
    Box::new(move |steps| {
        let _alive = (&pool, &guards);
        (0..steps / subscribers).for_each(|number| drop(bus.publish(Event(number as u64))));
        bus.wait_idle();
    })
}

/// A bounded channel and a thread for each subscriber, with events shared by reference count.
fn channels(subscribers: usize) -> Candidate {
    Box::new(move |steps| {
        let (senders, threads): (Vec<Sender<Arc<Event>>>, Vec<_>) = (0..subscribers)
            .map(|_| {
                let (sender, receiver) = bounded::<Arc<Event>>(CAPACITY);
                let thread = thread::spawn(move || receiver.iter().for_each(|event| handle(&event)));
                (sender, thread)
            })
            .unzip();
        for number in 0..steps / subscribers {
            let event = Arc::new(Event(number as u64));
            senders.iter().for_each(|sender| sender.send(Arc::clone(&event)).expect("its thread lives"));
        }
        drop(senders);
        threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    })
}

/// The crate `bus`: one ring, and a thread for each subscriber.
fn ring(subscribers: usize) -> Candidate {
    Box::new(move |steps| {
        let mut bus = bus::Bus::new(CAPACITY);
        let threads: Vec<_> = (0..subscribers)
            .map(|_| {
                let reader = bus.add_rx();
                thread::spawn(move || reader.into_iter().for_each(|event: Arc<Event>| handle(&event)))
            })
            .collect();
        (0..steps / subscribers).for_each(|number| bus.broadcast(Arc::new(Event(number as u64))));
        drop(bus);
        threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    })
}

fn publish(subscribers: usize) -> Workload {
    Workload {
        name: format!("publish_to_{subscribers}"),
        question: "What does one delivery of an event cost, from publication until all are handled?",
        steps: 200_000,
        candidates: vec![
            ("workcrew", workcrew(subscribers, How::Ordered)),
            ("workcrew_concurrent", workcrew(subscribers, How::Concurrent)),
            ("workcrew_synchronous", workcrew(subscribers, How::Synchronous)),
            ("channel_per_thread", channels(subscribers)),
            ("bus", ring(subscribers)),
        ],
    }
}

fn ordered() -> Workload {
    Workload {
        name: "million_ordered".to_owned(),
        question: "What does an event cost, if one ordered handler receives 1,000,000?",
        steps: 1_000_000,
        candidates: vec![
            ("workcrew", workcrew(1, How::Ordered)),
            ("channel_per_thread", channels(1)),
            ("bus", ring(1)),
        ],
    }
}

/// Returns delays in no order, which are longer than the run.
fn delay(number: usize) -> Duration {
    Duration::from_millis(3_600_000 + (number as u64 * 7_919) % 3_600_000)
}

fn timers() -> Workload {
    let pool = WorkerPool::builder().workers(WORKERS).build().expect("threads start");
    let ours = move |steps| {
        let set = |number| pool.execute_after(delay(number), || ()).expect("there is room");
        let timers: Vec<_> = (0..steps).map(set).collect();
        timers.iter().for_each(|timer| assert!(timer.cancel()));
    };
    let scheduled = ScheduledThreadPool::new(WORKERS);
    let theirs = move |steps| {
        let timers: Vec<_> = (0..steps).map(|number| scheduled.execute_after(delay(number), || ())).collect();
        timers.iter().for_each(scheduled_thread_pool::JobHandle::cancel);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    let queue = move |steps| {
        let _inside = runtime.enter();
        let mut queue = DelayQueue::new();
        let keys: Vec<_> = (0..steps).map(|number| queue.insert(number, delay(number))).collect();
        keys.iter().for_each(|key| {
            black_box(queue.remove(key));
        });
    };
    Workload {
        name: "timers".to_owned(),
        question: "What does it cost to set and cancel a timer, with 100,000 pending?",
        steps: 100_000,
        candidates: vec![
            ("workcrew", Box::new(ours)),
            ("scheduled_thread_pool", Box::new(theirs)),
            ("tokio_delay_queue", Box::new(queue)),
        ],
    }
}
