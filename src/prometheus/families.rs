//! The metric families: how each is called, and which numbers of a snapshot it shows.

#[cfg(feature = "events")]
use crate::events::{BusSample, DeliveryCounts, SubscriptionMetrics};
use crate::observe::histogram::Histogram;
use crate::observe::metrics::Metrics;

/// A metric family, which shows numbers of a snapshot `M`.
pub(super) struct Family<M> {
    /// The name without the suffix for a counter or for seconds.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) numbers: Numbers<M>,
}

/// The numbers of a family.
pub(super) enum Numbers<M> {
    /// A number that only grows.
    Counter(fn(&M) -> u64),
    /// Numbers that only grow, for each value of a label.
    Counters(&'static str, fn(&M) -> Vec<(&'static str, u64)>),
    /// A number that grows and shrinks.
    Gauge(fn(&M) -> u64),
    /// Numbers that grow and shrink, for each value of a label.
    Gauges(&'static str, fn(&M) -> Vec<(&'static str, u64)>),
    /// Durations, if they are recorded.
    Durations(fn(&M) -> Option<&Histogram>),
}

/// The families of a pool.
pub(super) const POOL: &[Family<Metrics>] = &[
    Family {
        name: "workcrew_tasks_submitted",
        help: "Tasks accepted since the pool was built",
        numbers: Numbers::Counter(|pool| pool.tasks_submitted),
    },
    Family {
        name: "workcrew_tasks_refused",
        help: "Submissions that were refused",
        numbers: Numbers::Counter(|pool| pool.tasks_refused),
    },
    Family {
        name: "workcrew_tasks_ended",
        help: "Accepted tasks that have ended, by outcome",
        numbers: Numbers::Counters("outcome", |pool| {
            vec![
                ("succeeded", pool.tasks_succeeded),
                ("failed", pool.tasks_failed),
                ("panicked", pool.tasks_panicked),
                ("cancelled", pool.tasks_cancelled),
            ]
        }),
    },
    Family {
        name: "workcrew_tasks_queued",
        help: "Tasks accepted and not started",
        numbers: Numbers::Gauge(|pool| pool.tasks_queued),
    },
    Family {
        name: "workcrew_tasks_running",
        help: "Tasks running now",
        numbers: Numbers::Gauge(|pool| pool.tasks_running),
    },
    Family {
        name: "workcrew_timers_pending",
        help: "Delayed tasks, tasks between two attempts, and periodic timers",
        numbers: Numbers::Gauge(|pool| pool.timers_pending as u64),
    },
    Family { name: "workcrew_workers", help: "Workers", numbers: Numbers::Gauge(|pool| pool.workers as u64) },
    Family {
        name: "workcrew_queue_capacity",
        help: "Capacity of the queue in jobs",
        numbers: Numbers::Gauge(|pool| pool.queue_capacity as u64),
    },
    Family {
        name: "workcrew_queue_len",
        help: "Jobs in the queue, by class",
        numbers: Numbers::Gauges("class", |pool| {
            vec![
                ("high", pool.queue_len_high as u64),
                ("normal", pool.queue_len as u64),
                ("background", pool.queue_len_background as u64),
            ]
        }),
    },
    Family {
        name: "workcrew_hooks_panicked",
        help: "Hooks and observer calls that panicked",
        numbers: Numbers::Counter(|pool| pool.hooks_panicked),
    },
    Family {
        name: "workcrew_hooks_skipped",
        help: "Hooks and observer calls that were skipped because they were nested too deep",
        numbers: Numbers::Counter(|pool| pool.hooks_skipped),
    },
    Family {
        name: "workcrew_queue_wait",
        help: "Time from submission to start",
        numbers: Numbers::Durations(|pool| pool.queue_wait.as_ref()),
    },
    Family {
        name: "workcrew_run_time",
        help: "Time from start to end",
        numbers: Numbers::Durations(|pool| pool.run_time.as_ref()),
    },
];

/// The families of an event bus.
#[cfg(feature = "events")]
pub(super) const BUS: &[Family<BusSample>] = &[
    Family {
        name: "workcrew_events_published",
        help: "Events published",
        numbers: Numbers::Counter(|sample| sample.bus.events_published),
    },
    Family {
        name: "workcrew_events_unhandled",
        help: "Published events that no subscription has accepted",
        numbers: Numbers::Counter(|sample| sample.bus.events_unhandled),
    },
    Family {
        name: "workcrew_events_refused",
        help: "Events that try_publish has returned",
        numbers: Numbers::Counter(|sample| sample.bus.events_refused),
    },
    Family {
        name: "workcrew_events_pending",
        help: "Events whose deliveries have not all ended",
        numbers: Numbers::Gauge(|sample| sample.bus.events_pending as u64),
    },
    Family {
        name: "workcrew_subscriptions",
        help: "Subscriptions",
        numbers: Numbers::Gauge(|sample| sample.bus.subscriptions as u64),
    },
    Family {
        name: "workcrew_bus_deliveries_ended",
        help: "Deliveries of all subscriptions that have ended, by outcome",
        numbers: Numbers::Counters("outcome", |sample| outcomes(&sample.bus.deliveries)),
    },
];

/// The families of the subscriptions with one name.
#[cfg(feature = "events")]
pub(super) const SUBSCRIPTION: &[Family<SubscriptionMetrics>] = &[
    Family {
        name: "workcrew_mailbox_len",
        help: "Events in the mailbox, including those that wait for another attempt",
        numbers: Numbers::Gauge(|subscription| subscription.mailbox_len as u64),
    },
    Family {
        name: "workcrew_mailbox_capacity",
        help: "Capacity of the mailbox in events",
        numbers: Numbers::Gauge(|subscription| subscription.mailbox_capacity as u64),
    },
    Family {
        name: "workcrew_deliveries_delayed",
        help: "Events that wait for another attempt",
        numbers: Numbers::Gauge(|subscription| subscription.deliveries_delayed as u64),
    },
    Family {
        name: "workcrew_handlers_running",
        help: "Threads that make deliveries",
        numbers: Numbers::Gauge(|subscription| subscription.handlers_running as u64),
    },
    Family {
        name: "workcrew_deliveries_ended",
        help: "Deliveries that have ended, by outcome; each that failed became a dead letter",
        numbers: Numbers::Counters("outcome", |subscription| outcomes(&subscription.deliveries)),
    },
    Family {
        name: "workcrew_delivery_attempts_failed",
        help: "Attempts that have failed or panicked",
        numbers: Numbers::Counter(|subscription| subscription.deliveries.attempts_failed),
    },
    Family {
        name: "workcrew_delivery_retries",
        help: "Attempts after the first",
        numbers: Numbers::Counter(|subscription| subscription.deliveries.retries),
    },
];

#[cfg(feature = "events")]
fn outcomes(deliveries: &DeliveryCounts) -> Vec<(&'static str, u64)> {
    vec![
        ("handled", deliveries.handled),
        ("failed", deliveries.failed),
        ("discarded", deliveries.discarded),
        ("cancelled", deliveries.cancelled),
        ("refused", deliveries.refused),
    ]
}

/// The families of a NATS worker.
#[cfg(feature = "nats")]
pub(super) const NATS_WORKER: &[Family<crate::nats::WorkerMetrics>] = &[
    Family {
        name: "workcrew_nats_slots",
        help: "Slots of all runs of the worker",
        numbers: Numbers::Gauge(|worker| worker.slots as u64),
    },
    Family {
        name: "workcrew_nats_jobs_in_flight",
        help: "Jobs that hold a slot",
        numbers: Numbers::Gauge(|worker| worker.jobs_in_flight as u64),
    },
    Family {
        name: "workcrew_nats_jobs_pending",
        help: "Jobs that were not delivered to any worker, at the last delivery",
        numbers: Numbers::Gauge(|worker| worker.jobs_pending),
    },
    Family {
        name: "workcrew_nats_jobs_delivered",
        help: "Deliveries",
        numbers: Numbers::Counter(|worker| worker.jobs_delivered),
    },
    Family {
        name: "workcrew_nats_jobs_redelivered",
        help: "Deliveries of jobs that had been delivered before",
        numbers: Numbers::Counter(|worker| worker.jobs_redelivered),
    },
    Family {
        name: "workcrew_nats_jobs_ended",
        help: "Deliveries that have ended, by outcome",
        numbers: Numbers::Counters("outcome", |worker| {
            vec![
                ("acked", worker.jobs_acked),
                ("retried", worker.jobs_retried),
                ("returned", worker.jobs_returned),
                ("postponed", worker.jobs_postponed),
                ("dead", worker.jobs_dead),
                ("lost", worker.outcomes_lost),
            ]
        }),
    },
    Family {
        name: "workcrew_nats_jobs_stuck",
        help: "Jobs that ran longer than stuck_after",
        numbers: Numbers::Counter(|worker| worker.jobs_stuck),
    },
    Family {
        name: "workcrew_nats_time_to_done",
        help: "Time from the storing of a job, or the end of its delay, to its confirmed end",
        numbers: Numbers::Durations(|worker| Some(&worker.time_to_done)),
    },
];
