//! Builds the same `Config` from the program's flags as a file would.

use std::path::Path;

use super::file::{self, ConfiguredAddress};
use super::problem::Problems;
use super::{Config, LISTEN};
use crate::admin::AdminAddress;
use crate::frontend::{ListenAddress, Listener};
use seawall_upstream::{self, Endpoint};

/// The settings that need no file. Omitted settings have their defaults.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The endpoints of the single origin group; the first that can be reached is used.
    pub origins: Vec<Endpoint>,
    /// The listeners' addresses.
    pub listen: Vec<ListenAddress>,
    /// The admin server's address.
    pub admin: Option<AdminAddress>,
    /// Bytes of memory for stored objects.
    pub memory: Option<u64>,
    /// Worker threads.
    pub threads: Option<usize>,
    /// Log every request.
    pub access_log: bool,
}

/// Builds the configuration. The only possible problems are addresses used twice.
pub(super) fn config(flags: Flags) -> Result<Config, Problems> {
    let mut problems = Problems::new(Path::new(""), String::new(), &[]);
    let listen = if flags.listen.is_empty() {
        vec![LISTEN]
    } else {
        flags.listen
    };
    let mut addresses: Vec<ConfiguredAddress> = listen
        .iter()
        .cloned()
        .map(ConfiguredAddress::listener)
        .collect();
    addresses.extend(flags.admin.clone().map(ConfiguredAddress::admin));
    for problem in file::address_conflicts(&addresses) {
        problems.push(problem);
    }
    let mut endpoints = flags.origins.into_iter();
    let Some(first) = endpoints.next() else {
        problems.push(file::no_origin());
        return Err(problems);
    };
    if problems.errors() > 0 {
        return Err(problems);
    }
    // Named after its first endpoint, as in a file.
    let mut group = seawall_upstream::Settings::single(&first.host.clone(), first);
    group.endpoints.extend(endpoints);
    let listeners = listen.into_iter().map(|address| Listener {
        address,
        tls: None,
        proxy_protocol: None,
    });
    let mut config = Config::with_origins(vec![group], listeners.collect());
    config.admin.listen = flags.admin;
    config.threads = flags.threads.unwrap_or(config.threads);
    config.telemetry.access_log.enabled |= flags.access_log;
    if let Some(memory) = flags.memory {
        config.cache.memory_bytes = memory;
        config.cache.object_bytes_max = config.cache.object_bytes_max.min(memory);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::super::{parse_admin_address, parse_endpoint, parse_listen_address};
    use super::*;

    fn flags(listeners: &[&str], admin: &str) -> Flags {
        Flags {
            origins: vec![parse_endpoint("https://origin.example").unwrap()],
            listen: listeners
                .iter()
                .map(|text| parse_listen_address(text).unwrap())
                .collect(),
            admin: Some(parse_admin_address(admin).unwrap()),
            ..Flags::default()
        }
    }

    #[test]
    fn creates_one_route_to_one_origin_from_flags() {
        let config = Config::from_flags(Flags {
            memory: Some(1 << 20),
            threads: Some(2),
            access_log: true,
            ..flags(
                &["127.0.0.1:8080", "unix:/run/seawall.sock"],
                "127.0.0.1:9090",
            )
        })
        .unwrap();
        assert_eq!(config.frontend.listeners.len(), 2);
        assert_eq!(config.rules.routes.len(), 1);
        assert_eq!(&*config.rules.routes[0].origin, "origin.example");
        assert_eq!(&*config.origins[0].name, "origin.example");
        assert_eq!(
            (config.cache.memory_bytes, config.cache.object_bytes_max),
            (1 << 20, 1 << 20)
        );
        assert_eq!(config.threads, 2);
        assert!(config.telemetry.access_log.enabled);
    }

    #[test]
    fn uses_defaults_for_missing_keys() {
        let origins = vec![parse_endpoint("http://10.0.0.5").unwrap()];
        let config = Config::from_flags(Flags {
            origins,
            ..Flags::default()
        })
        .unwrap();
        assert_eq!(
            config.frontend.listeners,
            [Listener {
                address: LISTEN,
                tls: None,
                proxy_protocol: None,
            }]
        );
        assert_eq!(config.admin.listen, None);
    }

    #[test]
    fn rejects_an_address_used_twice() {
        let twice = Config::from_flags(flags(&["127.0.0.1:8080", "127.0.0.1:8080"], "127.0.0.1:1"));
        assert!(twice.unwrap_err().to_string().contains("127.0.0.1:8080"));
        let admin = Config::from_flags(flags(&["0.0.0.0:8080"], "127.0.0.1:8080"));
        assert!(admin.unwrap_err().to_string().contains("admin"));
        assert!(Config::from_flags(Flags::default()).is_err());
    }

    #[test]
    fn builds_a_test_configuration_from_one_line() {
        let config = Config::single("http://127.0.0.1:1234", Vec::new()).unwrap();
        assert_eq!(config.origins[0].endpoints[0].port, 1234);
        assert!(Config::single("127.0.0.1:1234", Vec::new()).is_err());
    }
}
