//! Compares requested settings with those on the server. A server ignores settings that it is too
//! old for, and existing streams and consumers keep their settings.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::{consumer, stream};

/// A setting that is not as requested.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigMismatch {
    /// The name of the setting, as the server spells it.
    pub field: &'static str,
    /// The requested value.
    pub wanted: String,
    /// The value on the server.
    pub found: String,
}

impl fmt::Display for ConfigMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, not {}", self.field, self.found, self.wanted)
    }
}

/// Collects mismatches.
#[derive(Default)]
struct Mismatches(Vec<ConfigMismatch>);

impl Mismatches {
    fn compare<T: PartialEq + fmt::Debug>(&mut self, field: &'static str, wanted: &T, found: &T) {
        if wanted != found {
            self.0.push(ConfigMismatch { field, wanted: format!("{wanted:?}"), found: format!("{found:?}") });
        }
    }
}

/// Returns the settings of a stream that are not as requested.
pub(crate) fn of_stream(wanted: &stream::Config, found: &stream::Config) -> Vec<ConfigMismatch> {
    let mut differences = Mismatches::default();
    let sorted = |subjects: &[String]| {
        let mut subjects = subjects.to_vec();
        subjects.sort();
        subjects
    };
    differences.compare("subjects", &sorted(&wanted.subjects), &sorted(&found.subjects));
    differences.compare("retention", &wanted.retention, &found.retention);
    differences.compare("discard", &wanted.discard, &found.discard);
    differences.compare("max_msgs", &limit(wanted.max_messages), &limit(found.max_messages));
    differences.compare("max_bytes", &limit(wanted.max_bytes), &limit(found.max_bytes));
    let per_subject = |config: &stream::Config| limit(config.max_messages_per_subject);
    differences.compare("max_msgs_per_subject", &per_subject(wanted), &per_subject(found));
    let largest = |config: &stream::Config| limit(config.max_message_size.into());
    differences.compare("max_msg_size", &largest(wanted), &largest(found));
    differences.compare("max_age", &wanted.max_age, &found.max_age);
    differences.compare("duplicate_window", &wanted.duplicate_window, &found.duplicate_window);
    differences.compare("num_replicas", &wanted.num_replicas.max(1), &found.num_replicas.max(1));
    differences.compare("storage", &wanted.storage, &found.storage);
    let is_compressed = |config: &stream::Config| config.compression == Some(stream::Compression::S2);
    differences.compare("compression", &is_compressed(wanted), &is_compressed(found));
    differences.compare("discard_new_per_subject", &wanted.discard_new_per_subject, &found.discard_new_per_subject);
    // Without these answers no job would be stored for certain, or could be set aside.
    differences.compare("no_ack", &wanted.no_ack, &found.no_ack);
    differences.compare("deny_delete", &wanted.deny_delete, &found.deny_delete);
    if let Some(placement) = &wanted.placement {
        let place = |placement: &stream::Placement| (placement.cluster.clone(), placement.tags.clone());
        differences.compare("placement", &Some(place(placement)), &found.placement.as_ref().map(place));
    }
    if wanted.description.is_some() {
        differences.compare("description", &wanted.description, &found.description);
    }
    for (name, value) in &wanted.metadata {
        differences.compare("metadata", &Some(value), &found.metadata.get(name));
    }
    differences.0
}

/// Returns the settings of a consumer that are not as requested.
pub(crate) fn of_consumer(wanted: &consumer::pull::Config, found: &consumer::Config) -> Vec<ConfigMismatch> {
    let mut differences = Mismatches::default();
    differences.compare("deliver_subject", &None, &found.deliver_subject);
    differences.compare("ack_policy", &wanted.ack_policy, &found.ack_policy);
    differences.compare("ack_wait", &wanted.ack_wait, &found.ack_wait);
    // The delays of this list replace `ack_wait`, so heartbeats would come too late.
    differences.compare("backoff", &wanted.backoff, &found.backoff);
    differences.compare("max_deliver", &limit(wanted.max_deliver), &limit(found.max_deliver));
    differences.compare("max_ack_pending", &limit(wanted.max_ack_pending), &limit(found.max_ack_pending));
    differences.compare("max_waiting", &wanted.max_waiting, &found.max_waiting);
    differences.compare("filter_subject", &wanted.filter_subject, &found.filter_subject);
    let sorted_filters = |filters: &[String]| {
        let mut filters = filters.to_vec();
        filters.sort();
        filters
    };
    differences.compare(
        "filter_subjects",
        &sorted_filters(&wanted.filter_subjects),
        &sorted_filters(&found.filter_subjects),
    );
    differences.compare("deliver_policy", &wanted.deliver_policy, &found.deliver_policy);
    differences.compare("replay_policy", &wanted.replay_policy, &found.replay_policy);
    differences.compare("headers_only", &wanted.headers_only, &found.headers_only);
    differences.compare("max_batch", &wanted.max_batch, &found.max_batch);
    differences.compare("max_expires", &wanted.max_expires, &found.max_expires);
    differences.compare("inactive_threshold", &Duration::ZERO, &found.inactive_threshold);
    differences.compare("mem_storage", &wanted.memory_storage, &found.memory_storage);
    if wanted.num_replicas > 0 {
        differences.compare("num_replicas", &wanted.num_replicas, &found.num_replicas);
    }
    if wanted.description.is_some() {
        differences.compare("description", &wanted.description, &found.description);
    }
    for (name, value) in &wanted.metadata {
        differences.compare("metadata", &Some(value), &found.metadata.get(name));
    }
    differences.0
}

/// Returns a limit, of which "none" has several spellings on the server.
fn limit(number: i64) -> Option<i64> {
    (number > 0).then_some(number)
}
