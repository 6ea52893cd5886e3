//! What do classes and contexts cost where they are used, beside an empty job without them?

use std::hint::black_box;

use workcrew::{Priority, WorkerPool};

use super::empty;
use crate::candidate::{Candidate, Scale, Workload, timed};
use crate::pools::{Pools, QUEUE_CAPACITY};

/// Jobs in a sample.
const JOBS: usize = 100_000;
const CLASSES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Background];

pub(super) fn settings(pools: &'static Pools, scale: Scale) -> Workload {
    let jobs = scale.of(JOBS);
    let make = || WorkerPool::builder().workers(pools.workers).queue_capacity(QUEUE_CAPACITY);
    let build = |builder: workcrew::WorkerPoolBuilder| builder.build().expect("its threads start");
    let capture = || {
        let context = black_box(7_usize);
        move |run: &mut dyn FnMut()| {
            black_box(context);
            run();
        }
    };
    let (classes, contexts) = (build(make()), build(make().propagate(capture)));
    let plain = move |pool: &WorkerPool| {
        (0..jobs).for_each(|number| pool.execute(empty(number)).expect("the pool is open"));
        pool.wait_idle();
    };
    let of_classes = move |pool: &WorkerPool, classes: &[Priority]| {
        for number in 0..jobs {
            let job = empty(number);
            let task = pool.task().priority(classes[number % classes.len()]);
            task.execute(move |_| job()).expect("the pool is open");
        }
        pool.wait_idle();
    };
    let candidates = vec![
        Candidate::workcrew("workcrew", move || timed(1, jobs, || plain(&pools.workcrew))),
        Candidate::workcrew("workcrew_context", move || timed(1, jobs, || plain(&contexts))),
        Candidate::workcrew("workcrew_task", move || {
            timed(1, jobs, || of_classes(&pools.workcrew, &[Priority::Normal]))
        }),
        Candidate::workcrew("workcrew_classes", move || timed(1, jobs, || of_classes(&classes, &CLASSES))),
    ];
    Workload {
        question: "What does an empty job cost with a context of one word, with a token, and in three classes?",
        candidates,
    }
}
