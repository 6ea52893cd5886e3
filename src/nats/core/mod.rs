//! A connection to a server, and core NATS over it: publish, request and subscribe, at most once.
//!
//! `inner` is what the clones of a connection share. `connect` opens one. `dispatch` passes on the
//! events of the client library. `denied` and `permission` end calls that the server does not
//! permit. This folder knows nothing of streams and consumers.

pub(crate) mod connect;
pub(crate) mod reconnect;
pub(crate) mod connection;
pub(crate) mod connection_info;
pub(crate) mod publisher;
pub(crate) mod subscription;
pub(crate) mod message;
pub(crate) mod inner;
pub(crate) mod dispatch;
pub(crate) mod denied;
pub(crate) mod permission;
pub(crate) mod time_limit;
pub(crate) mod tls;
