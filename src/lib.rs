//! Seawall: an origin shield for HLS and DASH.
//!
//! The path of a request, in the order of the modules and crates below:
//!
//! 1. [`frontend`] accepts a connection, enforces its limits and parses a request.
//! 2. [`proxy`] runs the request pipeline: [`seawall_policy`] decides whether the request is
//!    admitted, its route and its key; [`seawall_cache`] looks the key up.
//! 3. Fresh: the response is sent at once. Stale: it is sent and refreshed in the background. Not
//!    stored: the request joins the one fill of its key, or starts it.
//! 4. A fill sends a request through [`seawall_upstream`]. [`seawall_manifest`] parses a manifest,
//!    [`seawall_policy`] decides the lifetime, `live` compares the version with what it knows of
//!    the stream, and every waiting viewer gets each chunk as it arrives.
//! 5. [`telemetry`] records one outcome per request.
//!
//! [`config`] turns TOML and flags into the settings of each module. [`server`] assembles the
//! modules. [`seawall_simulator`] is separate: an origin with a generated live stream, for tests
//! and `seawall demo`.

pub mod admin;
pub mod cli;
pub mod config;
pub mod frontend;
mod live;
pub mod proxy;
pub mod server;
pub mod telemetry;
