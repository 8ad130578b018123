//! A simulated live origin: one stream as HLS and DASH in all packagings, with a clock (real,
//! faster or manual) and with faults. Tests and `seawall demo` use it.
//!
//! [`Broadcast`] is pure: its content follows from the plan and the time. [`SimulatedOrigin`]
//! serves it on a socket.

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
