//! What the tests and examples share: a gRPC service without generated code.
