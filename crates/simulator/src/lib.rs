//! A simulated live origin: one stream as HLS, LL-HLS and DASH in all packagings, on a socket, with
//! a clock (real, faster or manual) and with faults. Tests and `seawall demo` use it.
//!
//! | part | is |
//! |---|---|
//! | [`Broadcast`] | the stream: pure, its content follows from the [`BroadcastPlan`] and the time |
//! | [`Clock`] | the time: real, faster, or moved by a [`ClockControl`] |
//! | [`SimulatedOrigin`] | an HTTP/1.1 server of a broadcast; [`SimulatedOrigin::twin`] is a second one |
//! | [`Faults`], [`Control`] | slow, failing, lagging or restarting, switched at run time |
//! | [`RequestLog`] | what was requested, how often, and how much of it at once |
//! | [`Player`] | the requests that a player makes, in order, from what the manifests say |
//!
//! Media is real: two video renditions and audio, in MPEG-TS and fMP4, that loop for ever.
//!
//! # Example
//!
//! A test decides what time it is, and sees what was requested.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//! use std::time::Duration;
//!
//! use seawall_simulator::{BroadcastPlan, Clock, Packaging, SimulatedOrigin};
//!
//! # fn main() -> std::io::Result<()> {
//! # let runtime = tokio::runtime::Runtime::new()?;
//! # let _entered = runtime.enter();
//! let start = Duration::from_secs(1_700_000_000);
//! let (clock, control) = Clock::manual(start);
//! let origin = SimulatedOrigin::start(BroadcastPlan::from(start), clock)?;
//! // Five segments of 2 seconds later:
//! control.advance(Duration::from_secs(10));
//!
//! let playlist = origin.entry(Packaging::Ts);
//! let mut connection = TcpStream::connect(origin.address())?;
//! write!(connection, "GET {playlist} HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n")?;
//! let mut response = String::new();
//! connection.read_to_string(&mut response)?;
//!
//! assert!(response.contains("#EXTM3U"));
//! assert_eq!(origin.request_log().requests(), 1);
//! # Ok(())
//! # }
//! ```

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
mod request_log;
mod resource;
mod utc;

pub use audience::{Player, PlayerFetch};
pub use broadcast::{Broadcast, BroadcastPlan};
pub use clock::{Clock, ClockControl};
pub use control::{Control, USAGE};
pub use faults::Faults;
pub use media_assets::DemoRendition;
pub use origin::SimulatedOrigin;
pub use request_log::{RequestCount, RequestLog};
pub use resource::{Packaging, Resource, ResourceKind};
pub use utc::{Utc, iso};
