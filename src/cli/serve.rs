//! `seawall serve`: starts a server from a file or from flags.

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::admin_client;
use super::logging::{self, LogFormat};
use crate::admin::AdminAddress;
use crate::config::{self, CheckScope, Config, Flags};
use crate::frontend::ListenAddress;
use crate::server::{ConfigFile, Predecessor, ServerStart, StartedProgram};
use seawall_upstream::Endpoint;

/// Run the server, until a signal stops it.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Read all settings from this file; excludes all other settings
    #[arg(long, value_name = "FILE", required_unless_present = "origins")]
    config: Option<PathBuf>,

    #[arg(
        help = "Where content comes from, such as https://origin.example; again for more, \
                to be tried when it cannot be reached",
        long = "origin",
        value_name = "URL",
        value_parser = config::parse_endpoint,
        conflicts_with = "config"
    )]
    origins: Vec<Endpoint>,

    #[arg(
        help = "Address for viewers: IP:PORT or unix:/PATH; repeat for more [default: 0.0.0.0:8080]",
        long,
        value_name = "ADDRESS",
        value_parser = config::parse_listen_address,
        conflicts_with = "config"
    )]
    listen: Vec<ListenAddress>,

    #[arg(
        help = "Address of the admin server (metrics, health, purges): 127.0.0.1:9090 or unix:/PATH",
        long,
        value_name = "ADDRESS",
        value_parser = config::parse_admin_address,
        conflicts_with = "config"
    )]
    admin: Option<AdminAddress>,

    /// Memory for stored objects, such as 1GiB
    #[arg(long, value_name = "SIZE", value_parser = config::parse_memory, conflicts_with = "config")]
    memory: Option<u64>,

    /// Worker threads; 0: one per core
    #[arg(long, value_name = "N", value_parser = config::parse_threads, conflicts_with = "config")]
    threads: Option<usize>,

    /// Log every request
    #[arg(long, conflicts_with = "config")]
    access_log: bool,

    /// Format of the log [default: text on a terminal, else json]
    #[arg(long, value_enum, value_name = "FORMAT")]
    log: Option<LogFormat>,
}

impl Serve {
    /// Runs until a signal stops the server.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let program = StartedProgram::of_this_process();
        let predecessor = Predecessor::from_environment()?;
        let reporter = predecessor.as_ref().map(Predecessor::failure_reporter);
        let served = self.serve(
            program.context("cannot find the program's file")?,
            predecessor,
        );
        if let (Err(error), Some(Ok(reporter))) = (&served, reporter) {
            reporter.report(super::error_text(error));
        }
        served
    }

    fn serve(
        self,
        program: StartedProgram,
        predecessor: Option<Predecessor>,
    ) -> anyhow::Result<()> {
        let default_admin = admin_client::address_from_environment()?;
        let (mut config, file) = if let Some(path) = self.config {
            let (config, warnings) = Config::check(&path, CheckScope::Offline)?;
            let complete = complete_from_environment;
            let file = ConfigFile {
                path,
                complete,
                warnings,
            };
            (config, Some(file))
        } else {
            let config = Config::from_flags(Flags {
                origins: self.origins,
                listen: self.listen,
                admin: self.admin,
                memory: self.memory,
                threads: self.threads,
                access_log: self.access_log,
            })?;
            (config, None)
        };
        set_default_admin(&mut config, default_admin);
        let terminal = predecessor.as_ref().map(Predecessor::has_terminal);
        let terminal = terminal.unwrap_or_else(|| stderr().is_terminal());
        let log = logging::start(self.log, &config.telemetry.log_levels, terminal)?;
        // Before any TLS is used. If another provider is installed already, that one is kept.
        let _ = rustls::crypto::ring::default_provider().install_default();
        if let Some(file) = &file {
            file.warnings.log();
        }
        let start = ServerStart {
            file,
            program: Some(program),
            predecessor,
        };
        crate::server::run(config, start, &log.log)
    }
}

/// Adds what the environment says to a file that is read again. The variable was valid at the
/// start.
fn complete_from_environment(config: &mut Config) {
    let default_admin = admin_client::address_from_environment();
    set_default_admin(config, default_admin.unwrap_or_default());
}

/// Sets the admin address from the environment, unless one is configured or a listener has that
/// port.
fn set_default_admin(config: &mut Config, default_admin: Option<AdminAddress>) {
    let is_used_by_listener = |port: u16| {
        let listeners = config.frontend.listeners.iter();
        let ports = listeners.filter_map(|listener| match listener.address {
            ListenAddress::Tcp(address) => Some(address.port()),
            ListenAddress::Unix(_) => None,
        });
        port != 0 && ports.into_iter().any(|other| other == port)
    };
    let default_admin = default_admin.filter(|address| match address {
        AdminAddress::Tcp(address) => !is_used_by_listener(address.port()),
        AdminAddress::Unix(_) => true,
    });
    if config.admin.listen.is_none() {
        config.admin.listen = default_admin;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_listening_on(at: &str) -> Config {
        let listener = crate::frontend::Listener {
            address: config::parse_listen_address(at).unwrap(),
            tls: None,
            proxy_protocol: None,
        };
        Config::single("http://origin.example", vec![listener]).unwrap()
    }

    #[test]
    fn ignores_the_address_of_the_environment_when_one_is_configured() {
        let address = |text| config::parse_admin_address(text).unwrap();
        let default_admin = address("127.0.0.1:9090");
        let mut config = config_listening_on("0.0.0.0:8080");
        set_default_admin(&mut config, Some(default_admin.clone()));
        assert_eq!(config.admin.listen, Some(default_admin.clone()));
        set_default_admin(&mut config, Some(address("127.0.0.1:9191")));
        assert_eq!(config.admin.listen, Some(default_admin.clone()));
        let mut config = config_listening_on("0.0.0.0:9090");
        set_default_admin(&mut config, Some(default_admin));
        assert_eq!(config.admin.listen, None);
    }
}
