//! Tests of queues, without a server.

use super::*;

/// The delivery of a job has the number of the job, plus this for each earlier delivery.
const AGAIN: u64 = 1_000;

/// Adds a job whose delivery is ready, and returns what starts.
fn arrive(queues: &mut KeyQueues, key: Key, number: u64) -> Option<u64> {
    queues.insert(key, number % AGAIN, number);
    queues.set_ready(number)
}

fn is_empty(queues: &KeyQueues) -> bool {
    queues.queues.is_empty() && queues.by_number.is_empty() && queues.waiting == 0 && queues.due.is_empty()
}

/// Fault 542.
#[test]
fn a_job_starts_when_no_earlier_one_of_its_key_is_left_and_none_is_active() {
    let mut queues = KeyQueues::default();
    assert_eq!(arrive(&mut queues, 1, 5), Some(5));
    assert_eq!(arrive(&mut queues, 1, 7), None);
    assert_eq!(arrive(&mut queues, 1, 3), None, "an earlier one that arrives later waits as well");
    assert_eq!(arrive(&mut queues, 2, 9), Some(9), "another key");
    assert_eq!(queues.waiting(), 2);
    assert_eq!(queues.end(5, None), Some(3));
    assert_eq!(queues.end(3, None), Some(7));
    assert_eq!((queues.end(7, None), queues.end(9, None)), (None, None));
    assert!(is_empty(&queues), "keys without jobs take no memory");
    assert_eq!((queues.end(7, None), queues.set_ready(7)), (None, None), "it is not there");
}

/// Fault 542.
#[test]
fn a_job_whose_history_is_read_keeps_its_place() {
    let mut queues = KeyQueues::default();
    queues.insert(1, 4, 4);
    assert_eq!(arrive(&mut queues, 1, 6), None);
    assert_eq!(queues.set_ready(4), Some(4));
    assert_eq!(queues.end(4, None), Some(6));
}

/// Fault 543.
#[test]
fn a_job_that_is_expected_again_holds_its_key_until_it_ends_or_is_gone() {
    let (mut queues, now) = (KeyQueues::default(), Instant::now());
    assert_eq!((arrive(&mut queues, 1, 2), arrive(&mut queues, 1, 3)), (Some(2), None));
    assert_eq!(queues.end(2, Some(now)), None);
    assert_eq!(queues.first_due(), Some(now));
    assert!(queues.insert(1, 2, AGAIN + 2), "it was expected");
    assert_eq!((queues.first_due(), queues.set_ready(AGAIN + 2)), (None, Some(AGAIN + 2)));
    assert_eq!(queues.end(AGAIN + 2, Some(now)), None);
    assert_eq!(queues.remove_expected(1, 2), Some(3));
    assert_eq!((queues.remove_expected(1, 2), queues.end(3, None)), (None, None));
    assert!(is_empty(&queues));
}

/// Fault 543.
#[test]
fn expected_jobs_are_checked_after_they_were_due_and_then_ever_more_rarely() {
    let (mut queues, now) = (KeyQueues::default(), Instant::now());
    arrive(&mut queues, 1, 2);
    queues.end(2, Some(now + Duration::from_secs(5)));
    assert_eq!(queues.take_overdue(now + Duration::from_secs(5)), []);
    let (mut moment, mut pauses) = (queues.next_check().expect("it is expected"), Vec::new());
    for _ in 0..7 {
        assert_eq!(queues.take_overdue(moment), [(1, 2)]);
        assert_eq!(queues.take_overdue(moment), [], "once");
        let next = queues.next_check().expect("it is expected");
        pauses.push((next - moment).as_secs());
        moment = next;
    }
    assert_eq!(pauses, [2, 4, 8, 16, 30, 30, 30]);
    queues.forget_expected();
    assert!(is_empty(&queues) && queues.next_check().is_none());
}

/// Fault 645.
#[test]
fn a_check_asks_for_a_bounded_number_of_jobs_and_the_next_one_for_the_rest() {
    let (mut queues, now) = (KeyQueues::default(), Instant::now());
    for number in 0..100 {
        arrive(&mut queues, number, number);
        queues.end(number, Some(now));
    }
    let moment = queues.next_check().expect("they are expected");
    assert_eq!((moment - now, queues.take_overdue(moment).len()), (FIRST_CHECK, MAX_CHECKED));
    assert_eq!(queues.take_overdue(moment), [], "not again at once");
    let next = queues.next_check().expect("some were not asked for");
    assert!(next > moment && next < moment + FIRST_CHECK);
    assert_eq!(queues.take_overdue(next).len(), 100 - MAX_CHECKED);
    assert_eq!(queues.next_check(), Some(moment + 2 * FIRST_CHECK));
}

#[test]
fn a_returned_job_and_two_deliveries_of_one_job_are_not_mixed_up() {
    let (mut queues, now) = (KeyQueues::default(), Instant::now());
    assert_eq!((arrive(&mut queues, 1, 2), arrive(&mut queues, 1, 3)), (Some(2), None));
    queues.set_active(3); // it goes back
    assert_eq!((queues.waiting(), queues.ready()), (0, vec![]));
    assert_eq!(queues.end(2, None), None);
    assert_eq!(arrive(&mut queues, 1, AGAIN + 3), None, "the outcome of the first delivery is not confirmed");
    assert_eq!(queues.end(3, Some(now)), Some(AGAIN + 3), "it is here already, and not expected");
    assert_eq!((queues.first_due(), queues.end(AGAIN + 3, None)), (None, None));
    assert!(is_empty(&queues));
}

/// Fault 543.
#[test]
fn each_job_ends_once_and_in_order_whatever_arrives_comes_again_or_goes_back() {
    for seed in 0..200_u64 {
        let mut random = seed;
        let mut roll = |sides: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % sides
        };
        let (mut queues, now) = (KeyQueues::default(), Instant::now());
        // Jobs that the server has, in its order, and those that run here.
        let (mut stored, mut running): (Vec<u64>, Vec<u64>) = ((1..60).collect(), Vec::new());
        let mut done: HashMap<Key, Vec<u64>> = HashMap::new();
        let mut most = 0;
        while !(stored.is_empty() && running.is_empty()) {
            let started = if !stored.is_empty() && (running.is_empty() || roll(2) == 0) {
                // What comes again may come before or after new jobs, but new ones come in order.
                let again: Vec<_> = (0..stored.len()).filter(|place| stored[*place] > AGAIN).collect();
                let first_new = stored.iter().position(|number| *number < AGAIN);
                let place = again.first().copied().filter(|_| first_new.is_none() || roll(2) == 0).or(first_new);
                let number = stored.remove(place.expect("something is stored"));
                arrive(&mut queues, number % AGAIN % 5, number)
            } else {
                let number = running.swap_remove(usize::try_from(roll(running.len() as u64)).expect("small"));
                let key = number % AGAIN % 5;
                if roll(3) == 0 {
                    stored.push(number + AGAIN);
                    queues.end(number, Some(now))
                } else {
                    done.entry(key).or_default().push(number % AGAIN);
                    queues.end(number, None)
                }
            };
            running.extend(started);
            let mut keys: Vec<_> = running.iter().map(|number| number % AGAIN % 5).collect();
            most = most.max(keys.len());
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), running.len(), "two of one key");
        }
        assert!(done.values().all(|jobs| jobs.is_sorted()), "seed {seed}: {done:?}");
        assert_eq!((done.values().map(Vec::len).sum::<usize>(), most > 1), (59, true), "seed {seed}");
        assert!(is_empty(&queues), "seed {seed}");
    }
}

/// Fault 544.
#[test]
fn in_a_drain_the_jobs_of_a_key_go_back_one_after_the_other_and_not_before_an_earlier_one_is_due() {
    let (mut queues, now) = (KeyQueues::default(), Instant::now());
    assert_eq!((arrive(&mut queues, 1, 2), arrive(&mut queues, 2, 3)), (Some(2), Some(3)));
    for (key, number) in [(1, 4), (2, 5), (1, 6), (2, 7)] {
        assert_eq!(arrive(&mut queues, key, number), None);
    }
    queues.end(3, Some(now + Duration::from_secs(9))); // it is tried again
    assert_eq!(queues.drain(), [5], "a job of the other key is running");
    assert_eq!(queues.delay_of(5, now), Duration::from_secs(9));
    assert_eq!(queues.end(5, Some(now + Duration::from_secs(9))), Some(7));
    assert_eq!((queues.end(7, Some(now)), queues.end(2, None)), (None, Some(4)));
    assert_eq!(queues.delay_of(4, now), Duration::ZERO);
    assert_eq!((queues.end(4, Some(now)), queues.waiting()), (Some(6), 0));
}
