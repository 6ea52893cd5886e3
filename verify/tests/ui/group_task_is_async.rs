//~ a task of a group returns `()` or a `Result`, not
//~ an async closure returns a future, which a pool does not run: write a plain closure

fn main() {
    let group = workcrew::WorkerPool::global().group();
    group.spawn(async || ());
    let _ = group.wait();
}
