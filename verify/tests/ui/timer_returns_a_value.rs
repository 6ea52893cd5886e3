//~ the closure of a periodic timer returns `()` or a `ControlFlow`, not `{integer}`
//~ to end the timer, return `ControlFlow::Break(())`; to go on, `ControlFlow::Continue(())` or `()`

use std::time::Duration;

fn main() {
    let _timer = workcrew::WorkerPool::global().execute_every(Duration::from_secs(1), || 1);
}
