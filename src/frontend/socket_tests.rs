//! Tests of the frontend over real sockets. One file per kind of promise.

mod closing;
mod fast_path;
mod http1;
mod http2;
mod late_streams;
mod limits;
mod listeners;
mod truncation;
mod workers;
