//~ the handler of an event returns `()` or `Result<(), E>`, not `u32`

fn main() {
    let bus = workcrew::events::EventBus::new(workcrew::WorkerPool::global());
    let _subscription = bus.subscribe(|n: &u32| *n);
}
