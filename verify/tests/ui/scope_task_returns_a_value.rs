//~ a task of a group or a scope returns `()` or a `Result`, not `{integer}`
//~ in a scope,

fn main() {
    let _ = workcrew::WorkerPool::global().scope(|scope| {
        scope.spawn(|| 1);
    });
}
