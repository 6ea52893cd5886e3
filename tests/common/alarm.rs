//! Wakers that count, ring or misbehave.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use crate::common::Counter;

/// Counts its wake-ups, and does something at each.
pub struct Alarm {
    pub rung: Counter,
    on_ring: Box<dyn Fn() + Send + Sync>,
}

impl Alarm {
    pub fn new() -> Arc<Self> {
        Self::that(|| ())
    }

    pub fn that(on_ring: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { rung: Counter::new(), on_ring: Box::new(on_ring) })
    }

    /// An alarm, and what tells of its ringing.
    pub fn with_bell() -> (Arc<Self>, mpsc::Receiver<()>) {
        let (bell, rings) = mpsc::channel();
        (Self::that(move || bell.send(()).unwrap_or(())), rings)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rung.add();
        (self.on_ring)();
    }
}

pub fn poll<F: Future + Unpin>(future: &mut F, alarm: &Arc<Alarm>) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(alarm))))
}

/// Polls a future until it is ready, each time after its alarm has rung.
pub fn poll_ready<F: Future + Unpin>(future: &mut F) -> F::Output {
    let (alarm, rings) = Alarm::with_bell();
    loop {
        if let Poll::Ready(output) = poll(future, &alarm) {
            return output;
        }
        rings.recv_timeout(crate::common::LIMIT).expect("a pending future is woken");
    }
}
