//! What was asked of the server, held against what it says it has: a server leaves out what it is too old to know, and
//! what exists keeps its settings.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::{consumer, stream};

/// A setting that is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The name of the setting in the server's own words.
    pub field: &'static str,
    /// What was asked for.
    pub wanted: String,
    /// What there is.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, not {}", self.field, self.found, self.wanted)
    }
}

/// Collects differences.
#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn look<T: PartialEq + fmt::Debug>(&mut self, field: &'static str, wanted: &T, found: &T) {
        if wanted != found {
            self.0.push(Difference { field, wanted: format!("{wanted:?}"), found: format!("{found:?}") });
        }
    }
}

/// In what a stream differs from what was asked for.
pub(crate) fn of_stream(wanted: &stream::Config, found: &stream::Config) -> Vec<Difference> {
    let mut differences = Differences::default();
    let sorted = |subjects: &[String]| {
        let mut subjects = subjects.to_vec();
        subjects.sort();
        subjects
    };
    differences.look("subjects", &sorted(&wanted.subjects), &sorted(&found.subjects));
    differences.look("retention", &wanted.retention, &found.retention);
    differences.look("discard", &wanted.discard, &found.discard);
    differences.look("max_msgs", &limit(wanted.max_messages), &limit(found.max_messages));
    differences.look("max_bytes", &limit(wanted.max_bytes), &limit(found.max_bytes));
    let per_subject = |config: &stream::Config| limit(config.max_messages_per_subject);
    differences.look("max_msgs_per_subject", &per_subject(wanted), &per_subject(found));
    let largest = |config: &stream::Config| limit(config.max_message_size.into());
    differences.look("max_msg_size", &largest(wanted), &largest(found));
    differences.look("max_age", &wanted.max_age, &found.max_age);
    differences.look("duplicate_window", &wanted.duplicate_window, &found.duplicate_window);
    differences.look("num_replicas", &wanted.num_replicas.max(1), &found.num_replicas.max(1));
    differences.look("storage", &wanted.storage, &found.storage);
    let is_compressed = |config: &stream::Config| config.compression == Some(stream::Compression::S2);
    differences.look("compression", &is_compressed(wanted), &is_compressed(found));
    differences.look("discard_new_per_subject", &wanted.discard_new_per_subject, &found.discard_new_per_subject);
    if let Some(placement) = &wanted.placement {
        let place = |placement: &stream::Placement| (placement.cluster.clone(), placement.tags.clone());
        differences.look("placement", &Some(place(placement)), &found.placement.as_ref().map(place));
    }
    if wanted.description.is_some() {
        differences.look("description", &wanted.description, &found.description);
    }
    for (name, value) in &wanted.metadata {
        differences.look("metadata", &Some(value), &found.metadata.get(name));
    }
    differences.0
}

/// In what a consumer differs from what was asked for.
pub(crate) fn of_consumer(wanted: &consumer::pull::Config, found: &consumer::Config) -> Vec<Difference> {
    let mut differences = Differences::default();
    differences.look("deliver_subject", &None, &found.deliver_subject);
    differences.look("ack_policy", &wanted.ack_policy, &found.ack_policy);
    differences.look("ack_wait", &wanted.ack_wait, &found.ack_wait);
    // Delays of this list take the place of `ack_wait`, and heartbeats would come too late.
    differences.look("backoff", &wanted.backoff, &found.backoff);
    differences.look("max_deliver", &limit(wanted.max_deliver), &limit(found.max_deliver));
    differences.look("max_ack_pending", &limit(wanted.max_ack_pending), &limit(found.max_ack_pending));
    differences.look("max_waiting", &wanted.max_waiting, &found.max_waiting);
    differences.look("filter_subject", &wanted.filter_subject, &found.filter_subject);
    let sorted_filters = |filters: &[String]| {
        let mut filters = filters.to_vec();
        filters.sort();
        filters
    };
    differences.look(
        "filter_subjects",
        &sorted_filters(&wanted.filter_subjects),
        &sorted_filters(&found.filter_subjects),
    );
    differences.look("deliver_policy", &wanted.deliver_policy, &found.deliver_policy);
    differences.look("replay_policy", &wanted.replay_policy, &found.replay_policy);
    differences.look("headers_only", &wanted.headers_only, &found.headers_only);
    differences.look("max_batch", &wanted.max_batch, &found.max_batch);
    differences.look("max_expires", &wanted.max_expires, &found.max_expires);
    differences.look("inactive_threshold", &Duration::ZERO, &found.inactive_threshold);
    differences.look("mem_storage", &wanted.memory_storage, &found.memory_storage);
    if wanted.num_replicas > 0 {
        differences.look("num_replicas", &wanted.num_replicas, &found.num_replicas);
    }
    if wanted.description.is_some() {
        differences.look("description", &wanted.description, &found.description);
    }
    for (name, value) in &wanted.metadata {
        differences.look("metadata", &Some(value), &found.metadata.get(name));
    }
    differences.0
}

/// The server says "no limit" in more than one way.
fn limit(number: i64) -> Option<i64> {
    (number > 0).then_some(number)
}
