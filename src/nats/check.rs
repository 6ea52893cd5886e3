//! Checks of arguments, made before anything is sent.
//!
//! The server and the client library answer some mistakes with silence, with a closed connection,
//! or with a panic. Each check here returns an [`InvalidArgument`] that names the field instead.
//! This module knows nothing of connections.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The longest subject, in bytes. The server closes the connection when a line of its protocol, the
/// subject included, is longer than 4,096 bytes.
const MAX_SUBJECT: usize = 2_048;
/// The longest name of a stream, a consumer or a queue group, in bytes. Leaves room for `_DEAD`.
const MAX_NAME: usize = 250;
/// The longest id of a job and the longest name of a header, in bytes.
const MAX_ID: usize = 1_024;
/// The most bytes of all headers of one message. The server stores 65,535; a dead letter adds its
/// own.
const MAX_HEADERS: usize = 56 * 1_024;
/// The largest number of messages or jobs that may be handled or requested at once.
pub(crate) const MAX_CONCURRENT: usize = 1 << 20;
/// The longest time that the server can count: it counts nanoseconds in 63 bits.
const MAX_SERVER_TIME: Duration = Duration::from_nanos(i64::MAX as u64);
/// The shortest limit of time that the server accepts for a stream.
const MIN_SERVER_TIME: Duration = Duration::from_millis(100);
/// The most servers on which a stream can be stored.
const MAX_REPLICAS: usize = 5;

/// An argument that was refused before anything was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidArgument {
    field: &'static str,
    reason: &'static str,
}

impl InvalidArgument {
    pub(crate) fn new(field: &'static str, reason: &'static str) -> Self {
        Self { field, reason }
    }

    /// Returns the name of the argument or setting, such as `subject`, `id` or `max_age`.
    #[must_use]
    pub fn field(&self) -> &str {
        self.field
    }

    /// Returns what is wrong with it. The text never repeats the value, which may be secret.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.reason
    }
}

impl fmt::Display for InvalidArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {}: {}", self.field, self.reason)
    }
}

impl std::error::Error for InvalidArgument {}

/// The outcome of a check.
pub(crate) type Checked = Result<(), InvalidArgument>;

/// Checks a subject that a message is published to.
pub(crate) fn subject(field: &'static str, subject: &str) -> Checked {
    words(field, subject, false)
}

/// Checks the subject of a job. Subjects that begin with `$` belong to the server: a job on one of
/// them would be a command.
pub(crate) fn job_subject(field: &'static str, text: &str) -> Checked {
    if text.starts_with('$') {
        return Err(InvalidArgument::new(field, "subjects that begin with $ belong to the server"));
    }
    subject(field, text)
}

/// Checks a subject that may hold wildcards.
pub(crate) fn filter(field: &'static str, filter: &str) -> Checked {
    words(field, filter, true)
}

fn words(field: &'static str, subject: &str, allows_wildcards: bool) -> Checked {
    let wrong = |reason| Err(InvalidArgument::new(field, reason));
    if subject.is_empty() {
        return wrong("it is empty");
    }
    if subject.len() > MAX_SUBJECT {
        return wrong("it is longer than 2,048 bytes");
    }
    let mut words = subject.split('.').peekable();
    while let Some(word) = words.next() {
        match word {
            "" => return wrong("it has an empty word: a dot at an end, or two in a row"),
            "*" | ">" if !allows_wildcards => return wrong("a message cannot be published to a wildcard"),
            ">" if words.peek().is_some() => return wrong("words follow `>`"),
            "*" | ">" => {}
            _ if word.contains(['*', '>']) => return wrong("a wildcard is not a whole word"),
            _ if word.contains(is_blank) => return wrong("it holds a blank or a control character"),
            _ => {}
        }
    }
    Ok(())
}

/// Returns `true` if a filter matches a subject.
pub(crate) fn is_match(filter: &str, subject: &str) -> bool {
    let mut words = subject.split('.');
    for wanted in filter.split('.') {
        match (wanted, words.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(word)) if wanted == word => {}
            _ => return false,
        }
    }
    words.next().is_none()
}

/// Checks the subjects of one stream or consumer: each of them, and that no two overlap.
pub(crate) fn filters(field: &'static str, filters: &[String]) -> Checked {
    for (place, one) in filters.iter().enumerate() {
        filter(field, one)?;
        if filters[..place].iter().any(|other| overlaps(other, one)) {
            return Err(InvalidArgument::new(field, "two of them overlap"));
        }
    }
    Ok(())
}

/// Returns `true` if some subject matches both filters.
pub(crate) fn overlaps(one: &str, other: &str) -> bool {
    let mut others = other.split('.');
    for word in one.split('.') {
        match (word, others.next()) {
            (_, None) => return false,
            (">", Some(_)) | (_, Some(">")) => return true,
            ("*", Some(_)) | (_, Some("*")) => {}
            (word, Some(other)) if word == other => {}
            _ => return false,
        }
    }
    others.next().is_none()
}

fn is_blank(character: char) -> bool {
    character.is_whitespace() || character.is_control()
}

/// Checks the name of a stream or consumer. The server uses it as a token in subjects, and as the
/// name of a folder.
pub(crate) fn name(field: &'static str, name: &str) -> Checked {
    let wrong = |reason| Err(InvalidArgument::new(field, reason));
    match name {
        "" => wrong("it is empty"),
        _ if name.len() > MAX_NAME => wrong("it is longer than 250 bytes"),
        _ if name.contains(is_blank) => wrong("it holds a blank or a control character"),
        _ if name.contains(['.', '*', '>', '/', '\\']) => wrong("it holds one of . * > / \\"),
        _ => Ok(()),
    }
}

/// Checks the name of a queue group, or a prefix of subjects.
pub(crate) fn group(field: &'static str, name: &str) -> Checked {
    let wrong = |reason| Err(InvalidArgument::new(field, reason));
    match name {
        "" => wrong("it is empty"),
        _ if name.len() > MAX_NAME => wrong("it is longer than 250 bytes"),
        _ if name.contains(is_blank) => wrong("it holds a blank or a control character"),
        _ => Ok(()),
    }
}

/// Checks a text that the server shows.
pub(crate) fn text(field: &'static str, text: &str) -> Checked {
    let wrong = |reason| Err(InvalidArgument::new(field, reason));
    match text {
        _ if text.len() > MAX_ID => wrong("it is longer than 1,024 bytes"),
        _ if text.contains(char::is_control) => wrong("it holds a control character"),
        _ => Ok(()),
    }
}

/// Checks the description and the metadata of a stream or a consumer.
pub(crate) fn descriptions(description: Option<&str>, metadata: &BTreeMap<String, String>) -> Checked {
    text("description", description.unwrap_or_default())?;
    for (name, value) in metadata {
        text("metadata", name)?;
        text("metadata", value)?;
        if name.is_empty() || name.starts_with("_nats.") {
            return Err(InvalidArgument::new("metadata", "a name is empty, or begins with `_nats.`"));
        }
    }
    Ok(())
}

/// Checks the id of a job, which travels in a header.
pub(crate) fn id(id: &str) -> Checked {
    if id.is_empty() {
        return Err(InvalidArgument::new("id", "it is empty, so the server could not detect a duplicate"));
    }
    if id.len() > MAX_ID {
        return Err(InvalidArgument::new("id", "it is longer than 1,024 bytes"));
    }
    header_value("id", id)
}

/// Checks the name of a header.
pub(crate) fn header_name(name: &str) -> Checked {
    let wrong = |reason| Err(InvalidArgument::new("header name", reason));
    match name {
        "" => wrong("it is empty"),
        _ if name.len() > MAX_ID => wrong("it is longer than 1,024 bytes"),
        _ if !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') => {
            wrong("it holds a colon, or a character that is not visible ASCII")
        }
        _ => Ok(()),
    }
}

/// Checks the value of a header. Blanks at its ends would be lost in transfer.
pub(crate) fn header_value(field: &'static str, value: &str) -> Checked {
    if value.contains(char::is_control) {
        return Err(InvalidArgument::new(field, "it holds a control character"));
    }
    if value.trim() != value {
        return Err(InvalidArgument::new(field, "it begins or ends with a blank"));
    }
    Ok(())
}

/// Checks the size of all headers of a message.
pub(crate) fn header_bytes(bytes: usize) -> Checked {
    if bytes > MAX_HEADERS {
        return Err(InvalidArgument::new("headers", "together they are longer than 56 KiB"));
    }
    Ok(())
}

/// Checks a time that must not be zero.
pub(crate) fn not_zero(field: &'static str, time: Duration) -> Checked {
    if time.is_zero() {
        return Err(InvalidArgument::new(field, "it is zero"));
    }
    Ok(())
}

/// Checks a time limit that the server enforces.
pub(crate) fn server_time(field: &'static str, time: Duration) -> Checked {
    if time < MIN_SERVER_TIME {
        return Err(InvalidArgument::new(field, "it is shorter than 100 ms"));
    }
    if time > MAX_SERVER_TIME {
        return Err(InvalidArgument::new(field, "it is longer than the server can count, 292 years"));
    }
    Ok(())
}

/// Checks that the delay of a job is shorter than the age at which the queue deletes it.
pub(crate) fn delay(delay: Duration, max_age: Option<Duration>) -> Checked {
    let wrong = |reason| Err(InvalidArgument::new("delay", reason));
    if delay > MAX_SERVER_TIME {
        return wrong("it is longer than the server can count, 292 years");
    }
    if max_age.is_some_and(|age| delay >= age) {
        return wrong("the queue deletes jobs of that age (max_age)");
    }
    Ok(())
}

/// Checks a limit. The server would take zero as no limit.
pub(crate) fn positive(field: &'static str, number: u64) -> Checked {
    if number == 0 {
        return Err(InvalidArgument::new(field, "it is zero; leave it unset for no limit"));
    }
    Ok(())
}

/// Checks how many messages or jobs may be handled or requested at once.
pub(crate) fn concurrency(field: &'static str, number: usize) -> Checked {
    if number == 0 {
        return Err(InvalidArgument::new(field, "it is zero"));
    }
    if number > MAX_CONCURRENT {
        return Err(InvalidArgument::new(field, "it is more than 1,048,576"));
    }
    Ok(())
}

/// Checks the settings that an order needs, or that need an order.
pub(crate) fn order(is_ordered: bool, has_lookahead: bool, has_heartbeats: bool) -> Checked {
    if has_lookahead && !is_ordered {
        return Err(InvalidArgument::new("lookahead", "it needs an order; set `ordered_by`"));
    }
    if is_ordered && !has_heartbeats {
        return Err(InvalidArgument::new("ordered_by", "jobs that wait for their key need heartbeats"));
    }
    Ok(())
}

/// Checks how many jobs may begin in a period.
pub(crate) fn rate(jobs: usize, period: Duration) -> Checked {
    if jobs == 0 {
        return Err(InvalidArgument::new("rate", "it allows no job; `pause` has a worker take no jobs"));
    }
    if period.is_zero() {
        return Err(InvalidArgument::new("rate", "its period is zero; leave it unset for no limit"));
    }
    Ok(())
}

/// Checks the number of servers that store each message.
pub(crate) fn replicas(number: usize) -> Checked {
    if !(1..=MAX_REPLICAS).contains(&number) {
        return Err(InvalidArgument::new("replicas", "it is not between 1 and 5"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_whole_words_and_only_allowed_in_filters() {
        for good in ["a", "a.b", "ä.b-c_d", "$JS.API.INFO"] {
            assert_eq!(subject("subject", good), Ok(()), "{good:?}");
        }
        for bad in ["", ".", ".a", "a.", "a..b", "a b", "a\tb", "a\r\nb", "a\0", "*", "a.>", "a*", "a.b>", "\u{85}"] {
            assert!(subject("subject", bad).is_err(), "{bad:?}");
        }
        for good in ["*", ">", "a.*.b", "a.>"] {
            assert_eq!(filter("filter", good), Ok(()), "{good:?}");
        }
        for bad in ["", "a.>.b", ">.a", "a*", "**", "a.*b", "a. ", ".*"] {
            assert!(filter("filter", bad).is_err(), "{bad:?}");
        }
        assert!(job_subject("subject", "$JS.API.STREAM.DELETE.JOBS").is_err());
    }

    #[test]
    fn a_filter_matches_as_on_the_server() {
        for (filter, subject, expected) in [
            ("a", "a", true),
            ("a", "a.b", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
        ] {
            assert_eq!(is_match(filter, subject), expected, "{filter} {subject}");
        }
    }

    #[test]
    fn filters_overlap_if_a_subject_matches_both() {
        for (one, other, expected) in [
            ("a.>", "a.b", true),
            ("a.*", "*.b", true),
            ("a.*.c", "a.b", false),
            ("other.x", "jobs.>", false),
            (">", "jobs.>", true),
            ("jobs", "jobs.>", false),
        ] {
            assert_eq!((overlaps(one, other), overlaps(other, one)), (expected, expected), "{one} {other}");
        }
    }

    #[test]
    fn times_fit_into_63_bits_of_nanoseconds() {
        for bad in [Duration::ZERO, Duration::from_millis(99), Duration::MAX, MAX_SERVER_TIME + Duration::from_nanos(1)]
        {
            assert!(server_time("max_age", bad).is_err(), "{bad:?}");
        }
        assert_eq!(server_time("max_age", MAX_SERVER_TIME), Ok(()));
    }
}
