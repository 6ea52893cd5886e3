//~ a task of a group or a scope returns `()` or a `Result`, not `{integer}`
//~ in a group, return `Ok::<_, std::convert::Infallible>(value)` from a task that cannot fail

fn main() {
    let group = workcrew::WorkerPool::global().group();
    group.spawn(|| 1);
    let _ = group.wait();
}
