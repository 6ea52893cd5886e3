//! Metrics of pools, event buses and NATS workers for Prometheus, through the official client
//! `prometheus-client`.
//!
//! A [`Collector`] is registered once. It reads the metrics of its sources at each scrape, and costs
//! nothing between scrapes.
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `workcrew_tasks_submitted_total`, `workcrew_tasks_refused_total` | counter | `pool` |
//! | `workcrew_tasks_ended_total` | counter | `pool`, `outcome`: `succeeded`, `failed`, `panicked` or `cancelled` |
//! | `workcrew_tasks_queued`, `workcrew_tasks_running`, `workcrew_timers_pending` | gauge | `pool` |
//! | `workcrew_workers`, `workcrew_queue_capacity` | gauge | `pool` |
//! | `workcrew_queue_len` | gauge | `pool`, `class`: `high`, `normal` or `background` |
//! | `workcrew_hooks_panicked_total`, `workcrew_hooks_skipped_total` | counter | `pool` |
//! | `workcrew_queue_wait_seconds`, `workcrew_run_time_seconds` | histogram | `pool`; only with [`timing`](crate::WorkerPoolBuilder::timing) |
//! | `workcrew_events_published_total`, `workcrew_events_unhandled_total`, `workcrew_events_refused_total` | counter | `bus` |
//! | `workcrew_events_pending`, `workcrew_subscriptions` | gauge | `bus` |
//! | `workcrew_bus_deliveries_ended_total` | counter | `bus`, `outcome`: `handled`, `failed`, `discarded`, `cancelled` or `refused` |
//! | `workcrew_deliveries_ended_total` | counter | `bus`, `subscription`, `outcome` as above |
//! | `workcrew_delivery_attempts_failed_total`, `workcrew_delivery_retries_total` | counter | `bus`, `subscription` |
//! | `workcrew_mailbox_len`, `workcrew_mailbox_capacity`, `workcrew_deliveries_delayed`, `workcrew_handlers_running` | gauge | `bus`, `subscription` |
//! | `workcrew_nats_slots`, `workcrew_nats_jobs_in_flight`, `workcrew_nats_jobs_pending` | gauge | `worker` |
//! | `workcrew_nats_jobs_delivered_total`, `workcrew_nats_jobs_redelivered_total` | counter | `worker` |
//! | `workcrew_nats_jobs_ended_total` | counter | `worker`, `outcome`: `acked`, `retried`, `returned`, `postponed`, `dead` or `lost` |
//! | `workcrew_nats_jobs_stuck_total` | counter | `worker` |
//! | `workcrew_nats_time_to_done_seconds` | histogram | `worker` |
//!
//! The text of the official client is in the `OpenMetrics` format, which Prometheus reads. A
//! dashboard for Grafana with these metrics is in the repository, as `docs/grafana.json`.

mod collector;
mod families;
mod sources;

pub use collector::Collector;
