//~ dropping a group cancels it
//~ dropping the handle detaches the task; use `execute` for a task without a result
//~ dropping the guard unsubscribes, as `let _ =` does at once: bind it to a name, or call `detach`
//~ dropping the guard removes the callback, as `let _ =` does at once: bind it to a name, or call `detach`
//~ a builder does nothing until `build` is called
//~ iterators are lazy: no item is taken and no task runs before `next` is called
//~ a future does nothing until it is polled
//~ the report says whether the pool was drained
//~ a subscription begins with `handle`
//~ a policy does nothing by itself

use std::time::Duration;

use workcrew::events::EventBus;
use workcrew::retry::RetryPolicy;
use workcrew::{CancellationToken, WorkerPool};

fn main() {
    let pool = WorkerPool::global();
    pool.group::<()>();
    pool.spawn(|| 1).unwrap();
    let bus = EventBus::new(pool);
    bus.subscribe(|_: &u32| ());
    CancellationToken::new().on_cancel(|| ());
    WorkerPool::builder().workers(1);
    pool.map(0..3, |n| n);
    pool.spawn_async(|| 1);
    pool.shutdown_timeout(Duration::ZERO);
    bus.subscription::<u32>().ordered();
    RetryPolicy::<u32>::exponential();
}
