//! The command line: `serve`, `demo`, `check`, `token`; the clients of a running server: `status`,
//! `drain`, `reload`, `upgrade`, `purge`, `explain`, and `health` (for container health checks);
//! `completions` and `man`.
//!
//! Exit codes: 0 for success, 1 when the command failed, 2 when the command line is invalid, 3 when
//! `check --diff` finds a difference.

mod admin_client;
mod check;
mod demo;
mod explain;
mod health;
mod logging;
mod manual;
mod operate;
mod serve;
mod token;
mod upgrade;
mod warm;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An origin shield for HLS and DASH.
#[derive(Debug, Parser)]
#[command(name = "seawall", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server, until a signal stops it
    Serve(serve::Serve),
    /// Show Seawall on this machine: a generated live stream with the shield in front
    Demo(demo::Demo),
    /// Report every problem in configuration files, or what differs between two
    Check(check::CheckArguments),
    /// Show whether a running server drains, and the state of its origins
    Status(operate::Status),
    /// Stop a running server after the responses in progress, as SIGTERM does
    Drain(operate::DrainServer),
    /// Remove stored objects from a running server
    Purge(operate::PurgeObjects),
    /// Have a running server fetch a stream ahead of its viewers
    Warm(warm::WarmStream),
    /// Ask a running server what it would do with a URL, and why
    Explain(explain::Explain),
    /// Have a running server read its configuration file again
    Reload(operate::ReloadServer),
    /// Replace the program of a running server without refusing a connection
    Upgrade(upgrade::UpgradeServer),
    /// Ask a running server whether it is healthy
    Health(health::Health),
    /// Make tokens for signed URLs, or say what a token contains
    Token(token::Token),
    /// Print completions for a shell
    Completions(manual::Completions),
    /// Print the manual page, of the program or of one command
    Man(manual::ManualPage),
}

/// Runs the program with these arguments.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let success = |()| ExitCode::SUCCESS;
    let result = match cli.command {
        Command::Serve(serve) => serve.run().map(success),
        Command::Demo(demo) => demo.run().map(success),
        Command::Check(check) => check.run(),
        Command::Status(status) => status.run().map(success),
        Command::Drain(drain) => drain.run().map(success),
        Command::Purge(purge) => purge.run().map(success),
        Command::Warm(warm) => warm.run(),
        Command::Explain(explain) => explain.run().map(success),
        Command::Reload(reload) => reload.run().map(success),
        Command::Upgrade(upgrade) => upgrade.run().map(success),
        Command::Health(health) => health.run().map(success),
        Command::Token(token) => token.run(),
        Command::Completions(completions) => {
            completions.print();
            Ok(ExitCode::SUCCESS)
        }
        Command::Man(page) => page.run().map(success),
    };
    result.unwrap_or_else(|error| {
        print_error(&error);
        ExitCode::FAILURE
    })
}

/// Prints the error to stderr.
fn print_error(error: &anyhow::Error) {
    match error.downcast_ref::<crate::config::Problems>() {
        Some(problems) => eprintln!("{}", problems.render(is_colour_wanted())),
        None => eprintln!("error: {error:#}"),
    }
}

/// The error in words, without colours.
fn error_text(error: &anyhow::Error) -> String {
    match error.downcast_ref::<crate::config::Problems>() {
        Some(problems) => problems.render(false),
        None => format!("{error:#}"),
    }
}

/// Prints a result to stdout, whose reader may be gone.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Whether to use colour: stderr is a terminal and `NO_COLOR` is not set.
fn is_colour_wanted() -> bool {
    let is_disabled = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !is_disabled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_a_valid_command_line() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn rejects_invalid_command_lines() {
        let is_rejected = |line: &str| Cli::try_parse_from(line.split(' ')).is_err();
        assert!(is_rejected("seawall serve"));
        assert!(is_rejected("seawall serve --origin origin.example"));
        assert!(is_rejected(
            "seawall serve --config a.toml --origin https://origin.example"
        ));
        assert!(is_rejected(
            "seawall serve --origin https://origin.example --listen 8080"
        ));
        assert!(is_rejected("seawall check"));
        assert!(!is_rejected(
            "seawall check --offline --strict --json a.toml b.toml"
        ));
        assert!(!is_rejected("seawall check --diff a.toml b.toml --json"));
        assert!(is_rejected("seawall check --diff a.toml"));
        assert!(is_rejected("seawall check --diff a.toml b.toml c.toml"));
        assert!(is_rejected(
            "seawall check --diff a.toml b.toml --diff c.toml d.toml"
        ));
        assert!(!is_rejected("seawall serve --config a.toml --log json"));
        assert!(!is_rejected("seawall health"));
        assert!(is_rejected("seawall explain"));
        let make = "seawall token make --key-id a --secret-file f --path /live";
        assert!(is_rejected(make));
        assert!(!is_rejected(&format!("{make} --expires-in 6h")));
        assert!(!is_rejected(&format!(
            "{make} --expires-at 60 --network ::1"
        )));
        assert!(is_rejected(&format!(
            "{make} --expires-in 6h --expires-at 60"
        )));
        assert!(is_rejected(&format!("{make} --expires-in 6")));
        assert!(is_rejected(&format!("{make} --expires-in 6h --network a")));
        assert!(!is_rejected("seawall explain --json http://a.example/b"));
        assert!(!is_rejected("seawall demo"));
        assert!(!is_rejected(
            "seawall demo --listen 127.0.0.1:0 --segment 4 --speed 8"
        ));
        assert!(is_rejected("seawall demo --segment 1"));
        assert!(is_rejected("seawall demo --segment 3"));
        assert!(is_rejected("seawall demo --speed 0"));
    }
}
