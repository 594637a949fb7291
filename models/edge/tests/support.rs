//! What the tests share. Must not hold tests of the product.

pub mod environment;
pub mod nets;
