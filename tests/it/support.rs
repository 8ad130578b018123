//! The tools of scenarios: a scripted origin, the shield in front of it, and raw viewers.

pub mod audience;
pub mod authority;
pub mod bucket;
pub mod content;
pub mod crowd;
pub mod frames;
pub mod gate;
pub mod metrics;
pub mod operated;
pub mod origin;
pub mod patience;
pub mod program;
pub mod shield;
pub mod tokens;
pub mod viewer;
pub mod warmed;
mod wire;

pub use content::{Fingerprint, ended_playlist, gzip, noise, playlist};
pub use gate::Gate;
pub use origin::{Origin, computed, hang_up, manifest, reply, segment, status};
pub use patience::eventually;
pub use shield::{Shield, percent_encoded};
pub use viewer::{Arriving, Ask, End, Response, ask, get, head};
