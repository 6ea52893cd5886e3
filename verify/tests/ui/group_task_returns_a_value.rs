//~ a task of a group returns `()` or a `Result`, not `{integer}`
//~ from a task with a value that cannot fail, return `Ok::<_, std::convert::Infallible>(value)`

fn main() {
    let group = workcrew::WorkerPool::global().group();
    group.spawn(|| 1);
    let _ = group.wait();
}
