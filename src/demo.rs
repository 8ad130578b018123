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
mod desk;
mod faults;
mod head;
mod hls;
mod origin;
mod place;
mod reel;
mod tally;
mod utc;

pub use audience::{Player, Sight};
pub use broadcast::{Broadcast, Plan};
pub use clock::{Clock, Hand};
pub use control::{Control, USAGE};
pub use faults::Faults;
pub use origin::Origin;
pub use place::{Form, Kind, Place};
pub use reel::Rendition;
pub use tally::{Count, Tally};
pub use utc::{Utc, iso};
