//! Tasks that say that they have started, then wait for what they are told.

use std::panic;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use workcrew::{JoinError, JoinHandle};

/// How long model and reality may take to agree. Only a defect reaches it.
pub const LIMIT: Duration = Duration::from_secs(5);

/// What a task can be told at its gate.
#[derive(Debug)]
pub enum Order {
    /// End, and return your number.
    Succeed,
    /// End, and return an error, if you are such a task; else as `Succeed`.
    Fail,
    /// Panic.
    TaskPanic,
    /// Join this task, tell what came of it, and wait for the next order.
    Join(JoinHandle<usize>),
}

/// Who has started, in the order of starting.
#[derive(Clone, Debug, Default)]
pub struct Started(Arc<Mutex<Vec<usize>>>);

impl Started {
    /// The tasks that have started, sorted.
    #[must_use]
    pub fn sorted(&self) -> Vec<usize> {
        let mut started = self.0.lock().expect("nobody panics under this lock").clone();
        started.sort_unstable();
        started
    }
}

/// The outside of a gate.
#[derive(Debug)]
pub struct Gate {
    /// Where orders go.
    orders: Sender<Order>,
    /// Where it tells what came of a join.
    joined: Receiver<Result<usize, JoinError>>,
}

impl Gate {
    /// A gate, and the task that waits at it.
    pub fn new(task: usize, started: &Started) -> (Self, impl FnOnce() -> Result<usize, usize> + Send + use<>) {
        let (orders, ordered) = channel();
        let (told, joined) = channel();
        let started = started.clone();
        let body = move || {
            started.0.lock().expect("nobody panics under this lock").push(task);
            loop {
                match ordered.recv().unwrap_or(Order::Succeed) {
                    Order::Succeed => return Ok(task),
                    Order::Fail => return Err(task),
                    Order::TaskPanic => panic::resume_unwind(Box::new(task)),
                    Order::Join(handle) => {
                        let _ = told.send(handle.join());
                    }
                }
            }
        };
        (Self { orders, joined }, body)
    }

    /// Gives an order; nobody may be there to hear it.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// What came of the join that was ordered.
    pub fn joined(&self) -> Result<Result<usize, JoinError>, String> {
        self.joined.recv_timeout(LIMIT).map_err(|error| format!("a join does not end: {error}"))
    }
}

/// Looks until `real` is what the model says.
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
