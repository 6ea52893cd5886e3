//! Times in the server's answers, in nanoseconds since 1970.

use serde_json::Value;

/// Returns a time of the client library in nanoseconds since 1970.
pub(crate) fn nanoseconds(moment: async_nats::datetime::DateTime) -> i128 {
    moment.unix_timestamp_nanos()
}

/// Returns a time in an answer in nanoseconds since 1970.
pub(crate) fn moment_of(text: &Value) -> Option<i128> {
    async_nats::datetime::parse_rfc3339(text.as_str()?).ok().map(nanoseconds)
}
