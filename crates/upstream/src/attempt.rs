//! Makes attempts: one request to one endpoint each, with a deadline for every step, counted once
//! at its end.

mod attempt_guard;
mod client;
mod upload;

pub(crate) use attempt_guard::AttemptGuard;
pub(crate) use client::{
    AttemptDeadlines, AttemptError, AttemptOutcome, AttemptResponse, EndpointClient,
};
pub(crate) use upload::{UpstreamUpload, read_ahead};
