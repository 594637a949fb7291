//! HTTP/2 as a load tester needs it: frames, HPACK, and one client connection.
//!
//! Own code because the `h2` crate costs more per request than the server under test (56k
//! instructions against 13k for HTTP/1). Must not know about sockets, models or measurement.

pub(crate) mod call;
pub(crate) mod client;
pub(crate) mod frame;
pub(crate) mod hpack;
mod huffman;
