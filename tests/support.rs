//! What the tests share. Must not hold tests of the product.

pub(crate) mod answers;
pub(crate) mod call;
pub(crate) mod certificates;
pub(crate) mod debian;
pub(crate) mod environment;
pub(crate) mod flips;
pub(crate) mod folder;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod loadtest;
pub(crate) mod mlflow;
pub(crate) mod printer;
pub(crate) mod prometheus;
pub(crate) mod promtool;
pub(crate) mod proof;
pub(crate) mod random;
pub(crate) mod receiver;
pub(crate) mod registries;
pub(crate) mod repository;
pub(crate) mod s3;
pub(crate) mod server;
pub(crate) mod torch;
pub(crate) mod wait;
