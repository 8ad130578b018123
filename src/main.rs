//! The `seawall` program: parse the command line, run, exit code.

use std::process::ExitCode;

/// Bodies of megabytes come and go: this one gives their memory back within a second
/// (`.cargo/config.toml` says so), which keeps the process near the bounds it was given.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    seawall::cli::run(std::env::args_os())
}
