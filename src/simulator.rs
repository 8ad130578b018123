//! Where does a live stream come from when there is none? A live-edge origin: the same stream as
//! HLS and DASH, in every form a shield must know, with a clock that may be real, faster or moved by
//! hand, and with the faults that origins have. It serves the scenarios and `seawall demo`.
//!
//! [`Broadcast`] is pure: what is on the air follows from the plan and the moment. [`Origin`] puts it
//! behind a socket.

mod audience;
mod body;
mod broadcast;
mod clock;
mod control;
mod dash;
mod faults;
mod handler;
mod head;
mod hls;
mod media_assets;
mod origin;
mod place;
mod request_log;
mod utc;

pub use audience::{Player, PlayerFetch};
pub use broadcast::{Broadcast, BroadcastPlan};
pub use clock::{Clock, ClockControl};
pub use control::{Control, USAGE};
pub use faults::Faults;
pub use media_assets::DemoRendition;
pub use origin::SimulatedOrigin;
pub use place::{Packaging, Resource, ResourceKind};
pub use request_log::{RequestCount, RequestLog};
pub use utc::{Utc, iso};
