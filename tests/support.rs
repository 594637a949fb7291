//! What the tests share. Must not hold tests of the product.

pub(crate) mod proof;
pub(crate) mod random;
