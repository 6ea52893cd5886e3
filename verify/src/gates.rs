//! Tasks that record their start, and then wait at a gate for orders.

use std::panic;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use workcrew::{JoinError, JoinHandle};

/// The time limit for model and pool to agree. Only a defect reaches it.
pub const LIMIT: Duration = Duration::from_secs(5);

/// An order for a task that waits at its gate.
#[derive(Debug)]
pub enum Order {
    /// End with the task's number.
    Succeed,
    /// End with an error, if the task is fallible; otherwise like `Succeed`.
    Fail,
    /// Panic.
    Panic,
    /// Join this task, report its outcome, and wait for the next order.
    Join(JoinHandle<usize>),
}

/// The numbers of the tasks that have started, in the order of starting.
#[derive(Clone, Debug, Default)]
pub struct Started(Arc<Mutex<Vec<usize>>>);

impl Started {
    /// The tasks that have started, sorted.
    #[must_use]
    pub fn sorted(&self) -> Vec<usize> {
        let mut started = self.0.lock().expect("no thread panics under this lock").clone();
        started.sort_unstable();
        started
    }
}

/// Gives orders to the task at a gate.
#[derive(Debug)]
pub struct Gate {
    /// Orders for the task.
    orders: Sender<Order>,
    /// Outcomes of joins.
    joined: Receiver<Result<usize, JoinError>>,
}

impl Gate {
    /// Creates a gate, and the task that waits at it.
    pub fn new(task: usize, started: &Started) -> (Self, impl FnOnce() -> Result<usize, usize> + Send + use<>) {
        let (orders, ordered) = channel();
        let (report, joined) = channel();
        let started = started.clone();
        let body = move || {
            started.0.lock().expect("no thread panics under this lock").push(task);
            loop {
                match ordered.recv().unwrap_or(Order::Succeed) {
                    Order::Succeed => return Ok(task),
                    Order::Fail => return Err(task),
                    Order::Panic => panic::resume_unwind(Box::new(task)),
                    Order::Join(handle) => {
                        let _ = report.send(handle.join());
                    }
                }
            }
        };
        (Self { orders, joined }, body)
    }

    /// Gives an order, without effect if the task has ended.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Returns the outcome of the join that was ordered.
    pub fn joined(&self) -> Result<Result<usize, JoinError>, String> {
        self.joined.recv_timeout(LIMIT).map_err(|error| format!("a join does not end: {error}"))
    }
}

/// Polls until `real` returns what the model predicts.
pub fn agree<T: PartialEq + std::fmt::Debug>(what: &str, model: &T, real: impl Fn() -> T) -> Result<(), String> {
    let since = Instant::now();
    loop {
        let found = real();
        if found == *model {
            return Ok(());
        }
        if since.elapsed() > LIMIT {
            return Err(format!("{what}: the model says {model:?}, the pool {found:?}"));
        }
        thread::yield_now();
    }
}
