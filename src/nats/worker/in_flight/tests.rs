//! Tests of heartbeats, stuck jobs and repeated deliveries, without a server.

use super::*;
use crate::nats::worker::incarnation::Origin;
use crate::nats::worker::server_clock::ServerClock;

const PERIOD: Duration = Duration::from_secs(8);

fn hold(in_flight: &mut InFlight) -> u64 {
    in_flight.insert(delivery(1), 0, CancellationToken::new())
}

/// One more delivery of the same job.
fn delivery(deliveries: u32) -> Arc<Delivered> {
    let message = async_nats::Message {
        subject: "jobs".into(),
        reply: Some(format!("$JS.ACK.JOBS.worker.{deliveries}.1.1.1.0").into()),
        payload: "".into(),
        headers: None,
        status: None,
        description: None,
        length: 0,
    };
    let origin = Origin { stream: 1, consumer: 1 };
    Arc::new(Delivered::read(message, origin, &Arc::new(ServerClock::new())).expect("a job"))
}

/// A task that does nothing.
struct Idle;

impl Task for Idle {
    fn run(&self, _: &crate::task::executor::Executor) {}

    fn is_finished(&self) -> bool {
        false
    }

    fn cancel(&self, _: crate::error::CancelReason, _: &crate::task::executor::Executor) -> bool {
        false
    }
}

#[test]
fn a_heartbeat_is_due_after_each_period_and_none_without_jobs() {
    let mut in_flight = InFlight::new(Some(PERIOD), None);
    let start = Instant::now();
    let _ = hold(&mut in_flight);
    assert_eq!(in_flight.due(start).heartbeats.len(), 0);
    let later = start + PERIOD + Duration::from_secs(1);
    assert_eq!(in_flight.due(later).heartbeats.len(), 1);
    assert_eq!(in_flight.due(later).heartbeats.len(), 0, "only once");
    assert_eq!(in_flight.next_check(), Some(later + PERIOD));
    in_flight.release(0);
    assert_eq!(in_flight.due(later + PERIOD).heartbeats.len(), 0);
    assert_eq!(in_flight.next_check(), None, "an idle run has no deadline");
}

#[test]
fn a_stuck_job_has_no_more_heartbeats_and_a_finished_one_is_never_stuck() {
    let mut in_flight = InFlight::new(Some(PERIOD), Some(3 * PERIOD));
    let start = Instant::now();
    for number in [hold(&mut in_flight), hold(&mut in_flight), hold(&mut in_flight)] {
        in_flight.start(number, Arc::new(Idle));
    }
    let _ = in_flight.get(0).expect("jobs").started.set(start);
    let _ = in_flight.get(1).expect("jobs").started.set(start);
    in_flight.finish(1);
    let due = in_flight.due(start + 4 * PERIOD);
    assert_eq!((due.stuck, due.heartbeats.len()), (vec![0], 2));
    let due = in_flight.due(start + 6 * PERIOD);
    assert_eq!((due.stuck, due.heartbeats.len()), (vec![], 2), "the third waits for a worker of the pool");
}

#[test]
fn a_delivery_of_a_job_that_runs_takes_the_place_of_the_earlier_one_and_is_no_attempt() {
    let mut in_flight = InFlight::new(None, None);
    assert!(!in_flight.adopt(&delivery(1), 0), "nothing is in flight");
    let number = hold(&mut in_flight);
    in_flight.start(number, Arc::new(Idle));
    assert!(in_flight.adopt(&delivery(2), 0));
    let job = in_flight.get(number).expect("a job");
    assert_eq!((job.delivered.deliveries, job.delivered.attempts(), in_flight.len()), (2, 1, 1));
    in_flight.release(number);
    assert!(!in_flight.adopt(&delivery(3), 0), "nothing is in flight");
}

#[test]
fn a_delivery_of_a_job_that_has_ended_is_an_attempt_unless_it_is_done() {
    let mut in_flight = InFlight::new(None, None);
    let number = hold(&mut in_flight);
    in_flight.get_mut(number).expect("a job").give_up_at = Some(Instant::now());
    assert!(!in_flight.adopt(&delivery(2), 0), "it has failed");
    in_flight.get_mut(number).expect("a job").is_decided = true;
    assert!(in_flight.adopt(&delivery(2), 0));
    assert_eq!(in_flight.get(number).expect("a job").delivered.deliveries, 1, "its outcome is on its way");
    let again = hold(&mut in_flight);
    in_flight.release(number);
    in_flight.get_mut(again).expect("a job").is_stuck = true;
    assert!(!in_flight.adopt(&delivery(3), 0), "the attempt was given up");
}

#[test]
fn a_delivery_expires_when_the_server_has_heard_nothing_of_it_for_two_thirds_of_the_ack_wait() {
    let mut in_flight = InFlight::new(Some(PERIOD), None);
    let number = hold(&mut in_flight);
    let later = Instant::now() + 4 * PERIOD;
    assert!(in_flight.is_expired(number, 3 * PERIOD, later));
    assert!(in_flight.is_expired(number, 5 * PERIOD, later));
    assert!(!in_flight.is_expired(number, 7 * PERIOD, later));
    assert!(!in_flight.is_expired(number + 1, PERIOD, later), "it is not there");
    in_flight.note_heartbeats(&[number]);
    assert!(!in_flight.is_expired(number, 3 * PERIOD, Instant::now()));
}
