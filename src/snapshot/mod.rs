//! Reading tables beside the stream, and merging what was read where it is true.
//! TODO
mod desk;
mod error;
mod lines;
mod query;
mod shape;
mod windows;
mod work;

pub mod reader;

pub use desk::{Desk, DeskTable, Report};
pub use error::SnapshotError;
pub use shape::{SnapshotTable, look_up_types};
pub use work::ReadingId;
