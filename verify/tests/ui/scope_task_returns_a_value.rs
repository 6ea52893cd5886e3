//~ a task of a group or a scope returns `()` or a `Result`, not `{integer}`
//~ in a scope, a value goes through what the task borrows: `|| *slot = value`

fn main() {
    let _ = workcrew::WorkerPool::global().scope(|scope| {
        scope.spawn(|| 1);
    });
}
