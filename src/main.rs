//! The `seawall` program: parses the command line, runs the command, returns the exit code.

use std::process::ExitCode;

/// Bodies of megabytes are allocated and freed all the time. jemalloc returns freed memory to the
/// system within a second (see `.cargo/config.toml`), which keeps the process near its configured
/// limits.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    seawall::cli::run(std::env::args_os())
}
