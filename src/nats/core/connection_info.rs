//! A server's description of itself, and the counters of a connection.

use super::connection::Connection;
use crate::sync::Ordering::Relaxed;

/// A server's description of itself. Returned by [`Connection::server_info`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// The name of the server.
    pub name: String,
    /// Its version, such as `2.9.10`.
    pub version: String,
    /// The largest message in bytes, headers included.
    pub max_payload: usize,
    /// The name of its cluster, if it belongs to one.
    pub cluster: Option<String>,
    /// Its JetStream domain, if it has one.
    pub domain: Option<String>,
    /// Whether JetStream is turned on.
    pub jetstream: bool,
}

/// The counters of a connection. Returned by [`Connection::statistics`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStatistics {
    /// Bytes received, without the overhead of the protocol.
    pub bytes_in: u64,
    /// Bytes sent, without the overhead of the protocol.
    pub bytes_out: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// The number of connections made, the first one included.
    pub connects: u64,
}

/// # Monitoring
impl Connection {
    /// Returns the server's description of itself; `None` before the first connection. May be stale
    /// when it returns.
    #[must_use]
    pub fn server_info(&self) -> Option<ServerInfo> {
        self.inner.client.try_server_info().map(|info| ServerInfo {
            name: info.server_name,
            version: info.version,
            max_payload: info.max_payload,
            cluster: info.cluster,
            domain: info.domain,
            jetstream: info.jetstream,
        })
    }

    /// Returns the counters of this connection since it was made.
    #[must_use]
    pub fn statistics(&self) -> ConnectionStatistics {
        let statistics = self.inner.client.statistics();
        ConnectionStatistics {
            bytes_in: statistics.in_bytes.load(Relaxed),
            bytes_out: statistics.out_bytes.load(Relaxed),
            messages_in: statistics.in_messages.load(Relaxed),
            messages_out: statistics.out_messages.load(Relaxed),
            connects: statistics.connects.load(Relaxed),
        }
    }
}
