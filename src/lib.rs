//! Seawall: an origin shield for HLS and DASH.
//!
//! The life of a request, in the order of the modules below:
//!
//! 1. [`edge`] accepts a connection, keeps it within its limits and parses a request.
//! 2. [`shield`] takes it through the journey: [`policy`] says whether it may enter, which
//!    route it takes and under which key; [`cache`] says what is held for that key.
//! 3. Fresh: it is answered at once. Stale: it is answered and refreshed behind the viewer.
//!    Nothing held: it joins the one fill for its key, or starts it.
//! 4. A fill asks [`origin`], lets [`media`] read a manifest, lets [`policy`] decide its lifetime,
//!    and hands every chunk to every viewer who waits.
//! 5. [`telemetry`] tells what happened, once.
//!
//! [`config`] turns a person's TOML into the settings each room owns, and [`server`] puts the
//! rooms together. [`demo`] stands apart: an origin that is live out of nothing, for scenarios and
//! for whoever wants to see the rest at work.

pub mod manifest;

pub mod policy;

pub mod cache;
pub mod telemetry;
pub mod upstream;

pub mod proxy;

pub mod admin;
pub mod frontend;

pub mod simulator;

pub mod cli;
pub mod config;
pub mod server;
