//! What the parts of the drill share while it runs.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use workcrew::nats::{Connection, JobQueue};

use crate::calls::Calls;
use crate::crew::Ending;
use crate::network::Proxy;
use crate::options::Options;
use crate::plan::Plan;
use crate::repeats::Causes;
use crate::servers::Server;
use crate::storms::Storms;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The drill while it runs.
pub(crate) struct Drill {
    pub(crate) options: Options,
    pub(crate) folder: PathBuf,
    pub(crate) calls: Arc<Calls>,
    pub(crate) servers: Vec<Server>,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) storms: Storms,
    /// A connection that the weather does not reach.
    pub(crate) admin: Connection,
    pub(crate) queue: JobQueue,
    pub(crate) plan: Plan,
    pub(crate) causes: Causes,
    pub(crate) results: Results,
}

/// The results of the deeds.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// How often the stream and the consumer were found to be other ones after their deletion.
    pub(crate) streams_replaced: usize,
    pub(crate) consumers_replaced: usize,
    /// The place of the job that cannot be parsed.
    pub(crate) unparsable: Option<u64>,
    /// The workers that were told to end before the evening.
    pub(crate) drained: Vec<Ending>,
    /// How many times the store was listed.
    pub(crate) looks: usize,
    /// The accepted jobs that were neither stored nor done at one of those times.
    pub(crate) lost: BTreeSet<usize>,
}
