use std::sync::Arc;
use workcrew::*;
#[test]
fn smoke() {
    for _ in 0..200 {
        let pool = Arc::new(WorkerPool::builder().workers(2).queue_capacity(4).build().unwrap());
        for _ in 0..100 {
            pool.execute(|| ()).unwrap();
        }
        pool.wait_idle();
        assert_eq!(pool.metrics().tasks_succeeded, 100);
        let p = pool.clone();
        let h = pool
            .spawn(move || {
                let h = p.spawn(|| 3).unwrap();
                h.join().unwrap()
            })
            .unwrap();
        assert_eq!(h.join().unwrap(), 3);
    }
}
fn chain(pool: &Arc<WorkerPool>, n: u32, done: std::sync::mpsc::Sender<()>) {
    if n == 0 {
        done.send(()).unwrap();
        return;
    }
    let p = pool.clone();
    pool.execute(move || chain(&p, n - 1, done)).unwrap();
}
#[test]
fn chain_small_stack() {
    let pool = Arc::new(WorkerPool::builder().workers(1).queue_capacity(1).stack_size(256 << 10).build().unwrap());
    let (s, r) = std::sync::mpsc::channel();
    let p = pool.clone();
    pool.execute(move || {
        p.execute(|| ()).unwrap();
        chain(&p, 200_000, s)
    })
    .unwrap();
    r.recv().unwrap();
    let p = pool.clone();
    pool.spawn(move || {
        for _ in 0..200_000 {
            p.execute(|| ()).unwrap();
        }
    })
    .unwrap()
    .join()
    .unwrap();
    fn nest(pool: &Arc<WorkerPool>, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        let p = pool.clone();
        pool.spawn(move || nest(&p, n - 1)).unwrap().join().map(|v| v + 1).unwrap()
    }
    let p = pool.clone();
    assert_eq!(pool.spawn(move || nest(&p, 60)).unwrap().join().unwrap(), 60);
}
