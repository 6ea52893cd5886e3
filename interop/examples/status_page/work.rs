//! Something to see: a shop with a slow mail server, bookings by account, thumbnails and reports.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use workcrew::events::{EventBus, Subscription};
use workcrew::retry::RetryPolicy;
use workcrew::{BuildError, KeyedExecutor, Priority, TaskGroup, WorkerPool};

/// How often the front of the shop submits work.
const TICK: Duration = Duration::from_millis(100);

/// A pool at work.
pub(crate) struct Work {
    pool: WorkerPool,
    bus: EventBus,
    /// Ends the thread that submits work.
    stop: Sender<()>,
    front: thread::JoinHandle<()>,
    _subscriptions: [Subscription; 2],
}

struct OrderPlaced {
    number: u32,
}

impl Work {
    /// Builds a pool and gives it work until [`stop`](Self::stop).
    pub(crate) fn start() -> Result<Self, BuildError> {
        let pool = WorkerPool::builder().workers(4).queue_capacity(64).timing(true).build()?;
        let bus = EventBus::builder(&pool).mailbox_capacity(16).build();
        let subscriptions = subscribe(&bus);
        let (stop, stopped) = mpsc::channel();
        let (shop, orders) = (pool.clone(), bus.clone());
        let front = thread::spawn(move || submit(&shop, &orders, &stopped));
        Ok(Self { pool, bus, stop, front, _subscriptions: subscriptions })
    }

    pub(crate) fn pool(&self) -> &WorkerPool {
        &self.pool
    }

    pub(crate) fn bus(&self) -> &EventBus {
        &self.bus
    }

    /// Ends the work: what runs may end, and what waits is cancelled.
    pub(crate) fn stop(self) {
        let Self { pool, bus, stop, front, _subscriptions: subscriptions } = self;
        drop(stop);
        let report = pool.shutdown_now();
        drop((subscriptions, bus));
        let ended = front.join();
        println!("{report}");
        assert!(ended.is_ok(), "the front of the shop panicked");
    }
}

/// Mail is slow and tried again; stock has no unicorns.
fn subscribe(bus: &EventBus) -> [Subscription; 2] {
    let patient = RetryPolicy::fixed(Duration::from_secs(2)).max_attempts(3);
    let mail = bus.subscription().name("mail").concurrent(1).retry(patient).handle(|order: &OrderPlaced| {
        thread::sleep(Duration::from_millis(350));
        if order.number.is_multiple_of(5) { Err("no connection") } else { Ok(()) }
    });
    let stock = bus.subscription().name("stock").handle(|order: &OrderPlaced| {
        thread::sleep(Duration::from_millis(20));
        if order.number.is_multiple_of(7) { Err("no unicorn in stock") } else { Ok(()) }
    });
    [mail, stock]
}

/// Submits work and never waits for room, so what is full refuses some of it.
fn submit(pool: &WorkerPool, bus: &EventBus, stopped: &Receiver<()>) {
    let bookings = KeyedExecutor::builder(pool).capacity(32).label("booking").build();
    let thumbnails: TaskGroup<()> = pool.group().label("thumbnail").limit(1).capacity(12);
    let accounts = ["alice", "bob", "carol"];
    for number in 0_u32.. {
        if stopped.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
            break;
        }
        let sleep = |millis| move || thread::sleep(Duration::from_millis(millis));
        if number.is_multiple_of(3) {
            let _ = bus.try_publish(OrderPlaced { number: number / 3 });
            let _ = bookings.try_execute(accounts[number as usize / 3 % accounts.len()], sleep(500));
        }
        if number.is_multiple_of(4) {
            let _ = thumbnails.try_spawn(sleep(600));
        }
        if number.is_multiple_of(20) {
            let report = pool.task().label("report").priority(Priority::Background);
            let _ = report.try_execute(move |_| thread::sleep(Duration::from_millis(2_500)));
        }
        if number.is_multiple_of(50) {
            let _ = pool.execute_after(Duration::from_secs(8), || ());
        }
    }
}
