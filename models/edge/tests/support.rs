//! What the tests share. Must not hold tests of the product.

pub mod cross;
pub mod environment;
pub mod nets;
