//~ a task of a scope returns `()` or `Result<(), E>`, not
//~ an async closure returns a future, which a pool does not run: write a plain closure

fn main() {
    let _ = workcrew::WorkerPool::global().scope(|scope| {
        scope.spawn(async || ());
    });
}
