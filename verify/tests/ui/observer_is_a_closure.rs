//~ is not an observer
//~ implement `Observer` for a type of your own: each of its methods has a default

fn main() {
    let builder = workcrew::WorkerPool::builder();
    let _pool = builder.observer(|task: &workcrew::TaskInfo<'_>| println!("{task:?}")).build();
}
