//! The conformance suite of buses, run on the bus of this crate.

use std::sync::Arc;
use std::time::Duration;

use crate::bus_conformance::{Backend, Handle, How, Numbered};
use crate::common::Mutex;
use workcrew::WorkerPool;
use workcrew::events::{EventBus, Subscription};
use workcrew::retry::RetryPolicy;

/// The bus of this crate as the conformance suite sees it.
struct Local {
    bus: EventBus,
    letters: Arc<Mutex<Vec<Numbered>>>,
    _pool: WorkerPool,
}

impl Local {
    fn new(workers: usize, mailbox: usize) -> Self {
        let pool = WorkerPool::builder().workers(workers).queue_capacity(1).build().unwrap();
        let letters: Arc<Mutex<Vec<Numbered>>> = Arc::default();
        let kept = Arc::clone(&letters);
        let bus = EventBus::builder(&pool)
            .mailbox_capacity(mailbox)
            .on_dead_letter(move |letter| kept.lock().unwrap().push(*letter.event::<Numbered>().unwrap()))
            .build();
        Self { bus, letters, _pool: pool }
    }
}

impl Backend for Local {
    const EXACTLY_ONCE: bool = true;
    type Guard = Subscription;

    fn subscribe(&self, how: How, handle: Handle) -> Subscription {
        let mut builder = self.bus.subscription::<Numbered>();
        if let Some(topic) = how.topic {
            builder = builder.topic(topic);
        }
        if how.once {
            builder = builder.once();
        }
        if how.concurrent > 1 {
            builder = builder.concurrent(how.concurrent);
        }
        builder.retry(RetryPolicy::fixed(Duration::ZERO).max_attempts(how.attempts)).handle(move |event| handle(event))
    }

    fn publish(&self, topic: Option<&str>, event: Numbered) {
        match topic {
            Some(topic) => self.bus.publish_to(topic, event),
            None => self.bus.publish(event),
        };
    }

    fn wait_idle(&self) {
        self.bus.wait_idle();
    }

    fn dead_letters(&self) -> Vec<Numbered> {
        self.letters.lock().unwrap().clone()
    }
}

// The last one holds ten events that wait, so its mailboxes are no smaller than that.
crate::bus_conformance! { [Local::new(1, 16), Local::new(2, 16), Local::new(8, 16), Local::new(2, 1024)] }
