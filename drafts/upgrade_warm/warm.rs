//! Objects that go from one process to the one that follows it in an upgrade: the new process asks
//! the old one before it asks an origin, over connections that came with the sockets.
//!
//! The old process gives what it has stored and fresh, and fetches nothing for it. The response is
//! judged as that of an origin: the stored fields, with the age that the object has.

mod giver;
mod source;
mod wire;

pub use giver::WarmGiver;
pub use source::{WARM_METRICS, WarmSource, WarmStats};
