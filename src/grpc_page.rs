#![doc = include_str!("../docs/grpc.md")]
