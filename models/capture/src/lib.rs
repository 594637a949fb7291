//! Captured requests and answers as tables: Parquet files under one folder for each model and signature, each with a
//! Delta log, so that pandas, DuckDB and every reader of Delta can open them while they are written.
//!
//! This crate must not know a server, a network, or how a request came to be captured.

mod date;
mod error;
pub mod storage;

pub mod layout;
pub mod row;

mod decode;
mod encode;
mod redacted;

mod delta;
pub mod table;

pub mod arrival;

pub mod evaluate;
pub mod labels;

pub use arrival::{Arrival, Arrivals};
pub use date::date;
pub use encode::{Appended, Rows};
pub use error::CaptureError;
pub use layout::{Column, Form, Layout};
pub use redacted::Redacted;
pub use row::{Captured, Latency, Row, Values};
pub use storage::{Local, Storage};
pub use table::{Table, tables};
