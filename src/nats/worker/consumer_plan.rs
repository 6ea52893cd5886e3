//! Changes the settings of an existing consumer, and shows the differences first.

use std::fmt;

use async_nats::jetstream::response::Response;
use async_nats::jetstream::{ErrorCode, consumer};
use serde_json::{Map, Value, json};

use super::Worker;
use super::config::ConsumerConfig;
use crate::nats::config_diff::{self, ConfigMismatch};
use crate::nats::core::inner::{ConnectionInner, WaitError};
use crate::nats::error::{BoxError, WorkerError};
use crate::sync::Arc;

/// The changes that would give a consumer the settings of a worker. Returned by
/// [`Worker::plan`].
#[must_use = "a plan changes nothing until `apply` is called"]
pub struct ConsumerPlan {
    connection: Arc<ConnectionInner>,
    config: Arc<ConsumerConfig>,
    /// The settings on the server, including those unknown to this crate; `None` if there is no
    /// consumer.
    found: Option<Map<String, Value>>,
    differences: Vec<ConfigMismatch>,
}

impl<E> Worker<E> {
    /// Finds out what [`apply`](ConsumerPlan::apply) would change of the consumer that all workers
    /// of this name share. Changes nothing. Blocks for one round trip.
    ///
    /// # Errors
    ///
    /// [`WorkerError::Unavailable`], [`WorkerError::Rejected`]; [`WorkerError::Invalid`] if the
    /// server is too old for the worker's subjects.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use workcrew::nats::{JobQueue, Worker, WorkerError};
    ///
    /// fn lengthen(queue: &JobQueue) -> Result<Worker<String>, WorkerError> {
    ///     let worker = Worker::builder(queue, "resizer").ack_wait(Duration::from_secs(60)).build()?;
    ///     let plan = worker.plan()?;
    ///     for difference in plan.differences() {
    ///         println!("{difference}"); // ack_wait is 30s, not 60s
    ///     }
    ///     plan.apply()?;
    ///     Ok(worker)
    /// }
    /// # let _ = lengthen;
    /// ```
    pub fn plan(&self) -> Result<ConsumerPlan, WorkerError> {
        let (connection, config) = (Arc::clone(&self.connection), Arc::clone(&self.config));
        config.check_server(&connection)?;
        let found = look_up(&connection, &config)?;
        let differences = found.as_ref().map_or(Ok(Vec::new()), |found| differences(&config, found))?;
        Ok(ConsumerPlan { connection, config, found, differences })
    }
}

impl ConsumerPlan {
    /// Returns the settings that would change.
    #[must_use]
    pub fn differences(&self) -> &[ConfigMismatch] {
        &self.differences
    }

    /// Returns `true` if there is no consumer yet. [`Worker::run`] creates it, with the worker's
    /// settings.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.found.is_none()
    }

    /// Changes the consumer where it differs. Without effect if nothing differs, or if there is no
    /// consumer. Other settings of the consumer stay, and so does its knowledge of the jobs.
    ///
    /// First stop the workers of this name that have the old settings. A run with the old settings
    /// continues until it prepares its consumer again, and then ends with [`WorkerError::Differs`].
    ///
    /// # Errors
    ///
    /// [`WorkerError::Rejected`] for a setting that cannot be changed, such as `max_waiting`.
    /// [`WorkerError::Differs`] if the server accepted the change and kept another value.
    pub fn apply(self) -> Result<(), WorkerError> {
        let Some(mut current) = self.found.filter(|_| !self.differences.is_empty()) else { return Ok(()) };
        let ConsumerConfig { stream, consumer, .. } = &*self.config;
        merge(&self.config, &mut current);
        let question = json!({ "stream_name": &**stream, "config": current, "action": "update" });
        let request = format!("CONSUMER.DURABLE.CREATE.{stream}.{consumer}");
        let calls = [request.clone()];
        let asking = self.connection.jetstream.request(request, &question);
        let answer = self.connection.wait(self.connection.permitted_api(&calls, asking))??;
        match answer {
            Ok(Response::Ok::<Value>(_)) => {}
            Ok(Response::Err { error }) => return Err(WorkerError::Rejected(error.into())),
            Err(error) => return Err(WorkerError::Unavailable(error.into())),
        }
        let found = look_up(&self.connection, &self.config)?.unwrap_or_default();
        let differences = differences(&self.config, &found)?;
        if differences.is_empty() {
            return Ok(());
        }
        Err(WorkerError::Differs { consumer: consumer.clone(), differences })
    }
}

/// Returns the settings of the consumer on the server; `None` if there is no consumer.
fn look_up(connection: &ConnectionInner, config: &ConsumerConfig) -> Result<Option<Map<String, Value>>, WorkerError> {
    let question = json!({});
    let asking = connection.jetstream.request(config.info_call(), &question);
    let mut answer: Value = match connection.wait(connection.permitted_api(&[config.info_call()], asking))?? {
        Ok(Response::Ok(answer)) => answer,
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {
            return Ok(None);
        }
        Ok(Response::Err { error }) => return Err(WorkerError::Rejected(error.into())),
        Err(error) => return Err(WorkerError::Unavailable(error.into())),
    };
    match answer.get_mut("config").map(Value::take) {
        Some(Value::Object(config)) => Ok(Some(config)),
        _ => Err(WorkerError::Unavailable("the answer is malformed".into())),
    }
}

fn differences(config: &ConsumerConfig, found: &Map<String, Value>) -> Result<Vec<ConfigMismatch>, WorkerError> {
    let found: consumer::Config = serde_json::from_value(Value::Object(found.clone()))
        .map_err(|error| WorkerError::Unavailable(BoxError::from(error)))?;
    Ok(config_diff::of_consumer(&config.to_client_config(), &found))
}

/// Writes the settings of this crate into those of the server.
fn merge(config: &ConsumerConfig, current: &mut Map<String, Value>) {
    let ConsumerConfig { filters, settings, .. } = config;
    let mut set = |name: &str, value: Option<Value>| match value {
        Some(value) => drop(current.insert(name.to_owned(), value)),
        None => drop(current.remove(name)),
    };
    let wanted = config.to_client_config();
    set("ack_wait", Some(json!(u64::try_from(config.ack_wait.as_nanos()).unwrap_or(u64::MAX))));
    set("max_deliver", Some(json!(-1)));
    set("max_ack_pending", Some(json!(config.max_ack_pending)));
    set("max_waiting", Some(json!(wanted.max_waiting)));
    set("filter_subject", (filters.len() == 1).then(|| json!(filters[0])));
    set("filter_subjects", (filters.len() > 1).then(|| json!(filters)));
    set("deliver_policy", Some(json!("all")));
    set("ack_policy", Some(json!("explicit")));
    set("replay_policy", Some(json!("instant")));
    set("mem_storage", settings.memory_storage.then_some(Value::Bool(true)));
    for name in ["backoff", "headers_only", "max_batch", "max_expires", "inactive_threshold", "deliver_subject"] {
        set(name, None);
    }
    if let Some(replicas) = settings.replicas {
        set("num_replicas", Some(json!(replicas)));
    }
    if let Some(description) = &settings.description {
        set("description", Some(json!(description)));
    }
    if !settings.metadata.is_empty() {
        let metadata = current.entry("metadata").or_insert_with(|| json!({}));
        for (name, value) in &settings.metadata {
            metadata[name] = json!(value);
        }
    }
}

impl fmt::Debug for ConsumerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerPlan")
            .field("consumer", &self.config.consumer)
            .field("is_missing", &self.is_missing())
            .field("differences", &self.differences)
            .finish_non_exhaustive()
    }
}

impl From<WaitError> for WorkerError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Timeout => Self::Unavailable("no answer in time".into()),
            WaitError::OnIoThread => Self::WouldDeadlock,
        }
    }
}
