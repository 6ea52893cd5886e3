//~ the handler of a batch returns `()`, `Result<(), E>` or `Vec<Result<(), E>>`, not `usize`

use std::time::Duration;

fn main() {
    let bus = workcrew::events::EventBus::new(workcrew::WorkerPool::global());
    let _subscription = bus.subscription().batch(10, Duration::ZERO).handle(|n: &[&u32]| n.len());
}
