//~ a task of a group or a scope returns `()` or a `Result`, not

fn main() {
    let group = workcrew::WorkerPool::global().group();
    group.spawn(async || ());
    let _ = group.wait();
}
