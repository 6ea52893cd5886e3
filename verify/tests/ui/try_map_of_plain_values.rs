//~ the function of `try_map` returns a `Result`, not `{integer}`
//~ for a function that returns plain values, use `map`

fn main() {
    let _ = workcrew::WorkerPool::global().try_map([1, 2], |n| n * 2);
}
