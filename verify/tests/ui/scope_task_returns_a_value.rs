//~ a task of a scope returns `()` or `Result<(), E>`, not `{integer}`
//~ for a task with a value, use `spawn_value`, whose handle returns the value, or `map`

fn main() {
    let _ = workcrew::WorkerPool::global().scope(|scope| {
        scope.spawn(|| 1);
    });
}
