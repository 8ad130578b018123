//! Reads `[[listener]]`, `[limits]` and `[admin]`.

use std::net::IpAddr;

use super::{access, key_pair, read_tables};
use crate::admin::declaration::AdminRole;
use crate::admin::{self, AdminAddress, TokenSettings};
use crate::config::problem::{Problem, SourceSpan};
use crate::config::toml_reader::{ReadResult, TomlTable, TomlValue};
use crate::config::{LISTEN, ValueError, address, read};
use crate::frontend::{
    CertificateFiles, ClientAuthority, Limits, ListenAddress, Listener, Tls, read_authorities,
};

const DEMANDS: &str = "\"required\" or \"optional\"";

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum AddressUse {
    /// Viewers.
    Listener,
    /// Operators.
    Admin,
}

/// An address to listen on, and its position in the file.
#[derive(Clone, Debug)]
pub(in crate::config) struct ConfiguredAddress {
    /// The address.
    pub(in crate::config) address: ListenAddress,
    /// Its use.
    pub(in crate::config) used_as: AddressUse,
    /// Its position in the file; `None` if it comes from a flag.
    pub(in crate::config) span: Option<SourceSpan>,
}

impl ConfiguredAddress {
    /// An address for viewers.
    pub(in crate::config) fn listener(address: ListenAddress) -> ConfiguredAddress {
        ConfiguredAddress {
            address,
            used_as: AddressUse::Listener,
            span: None,
        }
    }

    /// An address for operators.
    pub(in crate::config) fn admin(address: AdminAddress) -> ConfiguredAddress {
        ConfiguredAddress {
            address: match address {
                AdminAddress::Tcp(address) => ListenAddress::Tcp(address),
                AdminAddress::Unix(path) => ListenAddress::Unix(path),
            },
            used_as: AddressUse::Admin,
            span: None,
        }
    }
}

/// Reads every `[[listener]]`; without any, the default one.
pub(super) fn read_listeners(
    root: &mut TomlTable<'_>,
    listeners: &mut Vec<Listener>,
) -> Vec<ConfiguredAddress> {
    let read = read_tables(root, "listener", "[[listener]]", read_listener);
    let (listeners_read, addresses): (Vec<_>, Vec<_>) = read.into_iter().flatten().unzip();
    listeners.extend(listeners_read);
    if root.value("listener").is_none() {
        listeners.push(Listener {
            address: LISTEN,
            tls: None,
            proxy_protocol: None,
        });
        return vec![ConfiguredAddress::listener(LISTEN)];
    }
    addresses
}

fn read_listener(table: &mut TomlTable<'_>) -> Option<(Listener, ConfiguredAddress)> {
    let mut tls = None;
    let start = table.value("listen");
    if start.is_none() {
        table.report_missing("listen", "listen = \"0.0.0.0:8080\"");
    }
    table.read_some_into("tls", &mut tls, tls_settings);
    let proxy_protocol = table.get("proxy_protocol", |value| {
        value.table("proxy_protocol", access::read_proxy_sources)
    });
    let start = start?;
    let address = start
        .reader()
        .value_or_report(read::parsed(address::parse_listen_address, "an address")(
            start,
        ))?;
    let configured_address = ConfiguredAddress {
        span: Some(start.span()),
        ..ConfiguredAddress::listener(address.clone())
    };
    let listener = Listener {
        address,
        tls,
        proxy_protocol: proxy_protocol.flatten(),
    };
    Some((listener, configured_address))
}

fn tls_settings(value: TomlValue<'_>) -> ReadResult<Tls> {
    let tls = value.table("tls", |table| {
        let mut tls = Tls {
            certificates: Vec::new(),
            tls12: true,
            client: None,
        };
        if table.value("certificates").is_none() {
            let example = "certificates = [{ certificate = \"live.pem\", key = \"live.key\" }]";
            table.report_missing("certificates", example);
        }
        let pairs = read::nonempty_list(certificate, "a list of certificates with their keys");
        table.read_into("certificates", &mut tls.certificates, |value| {
            Ok(pairs(value)?.into_iter().flatten().collect())
        });
        table.read_into("tls12", &mut tls.tls12, read::flag);
        tls.client = client_authority(table);
        tls
    })?;
    Ok(tls)
}

/// Reads `client_ca` and `client_certificates`.
fn client_authority(table: &mut TomlTable<'_>) -> Option<ClientAuthority> {
    let demand = table.value("client_certificates");
    let is_required = table.get(
        "client_certificates",
        read::one_of(&CLIENT_CERTIFICATES, DEMANDS),
    );
    let ca = table.get("client_ca", |value| {
        let path = value.path()?;
        let read = read_authorities(&path);
        read.map_err(|why| read::file_problem(value, &path, why.to_string()))?;
        Ok(path)
    });
    if let Some(demand) = demand.filter(|_| table.value("client_ca").is_none()) {
        let problem = Problem::new("`client_certificates` needs `client_ca`");
        let problem = problem.at(demand.span(), "issued by whom?");
        table
            .reader()
            .add_problem(problem.help("add client_ca = \"clients.pem\""));
    }
    Some(ClientAuthority {
        ca: ca?,
        is_required: is_required.unwrap_or(true),
    })
}

/// The words for whether a viewer needs a certificate to connect.
pub(in crate::config) const CLIENT_CERTIFICATES: [(&str, bool); 2] =
    [("required", true), ("optional", false)];

fn certificate(value: TomlValue<'_>) -> ReadResult<Option<CertificateFiles>> {
    value.table("certificates", |table| {
        let expected = [
            ("certificate", "certificate = \"live.pem\""),
            ("key", "key = \"live.key\""),
        ];
        let (certificate, key) = key_pair::read_key_pair(table, expected)?;
        Some(CertificateFiles { certificate, key })
    })
}

/// Reads `[limits]`, except for `ranges_max`, a key of `proxy::Settings`.
pub(super) fn read_limits(table: &mut TomlTable<'_>, limits: &mut Limits) {
    table.read_into("connections_max", &mut limits.connections_max, read::count);
    let per_client = &mut limits.connections_per_client_max;
    table.read_into("connections_per_client_max", per_client, read::count);
    table.read_into("streams_max", &mut limits.streams_max, read::count);
    table.read_into("head_max", &mut limits.head_bytes_max, read::size);
    let header = table.value("header_max");
    table.read_into("header_max", &mut limits.header_bytes_max, read::size);
    table.read_into("headers_max", &mut limits.headers_max, read::count);
    table.read_into("uri_max", &mut limits.uri_bytes_max, read::size);
    table.read_into(
        "handshake_timeout",
        &mut limits.handshake_timeout,
        read::timeout,
    );
    table.read_into("head_timeout", &mut limits.head_timeout, read::timeout);
    table.read_into("idle_timeout", &mut limits.idle_timeout, read::timeout);
    let rate = &mut limits.send_rate_min_bytes_per_second;
    table.read_into("send_rate_min", rate, read::size_or_zero);
    table.read_into(
        "send_rate_window",
        &mut limits.send_rate_window,
        read::timeout,
    );
    table.read_into(
        "unwanted_body_max",
        &mut limits.unwanted_body_bytes_max,
        read::size_or_zero,
    );
    table.read_into(
        "request_body_max",
        &mut limits.request_body_bytes_max,
        read::size_or_zero,
    );
    if let Some(header) = header.filter(|_| limits.header_bytes_max > limits.head_bytes_max) {
        let expected = "at most `head_max`, which all headers share";
        table
            .reader()
            .add_problem(header.problem(ValueError::new(expected, "larger than `head_max`")));
    }
}

/// Reads `[admin]`.
pub(super) fn read_admin(
    table: &mut TomlTable<'_>,
    admin: &mut admin::Settings,
) -> Option<ConfiguredAddress> {
    let name = |text: &str| address::server_name(text).map(|name| name.to_ascii_lowercase());
    let name = read::parsed(name, "a host name");
    table.read_into(
        "hosts",
        &mut admin.hosts,
        read::list(name, "a list of host names"),
    );
    let tokens = read::list(admin_token, TOKENS);
    table.read_into("tokens", &mut admin.tokens, |value| {
        let tokens: Vec<_> = tokens(value)?.into_iter().flatten().collect();
        check_names(value, &tokens)?;
        Ok(tokens)
    });
    table.read_some_into("audit_log", &mut admin.audit_log, |value| value.path());
    let value = table.value("listen")?;
    let address =
        value.reader().value_or_report(
            read::parsed(address::parse_admin_address, "an address")(value),
        )?;
    admin.listen = Some(address.clone());
    // Tokens that are there but wrong have a problem of their own.
    if table.value("tokens").is_none() && admin.check_protection().is_err() {
        let problem = Problem::new("the admin server can be reached from other machines");
        let problem = problem.at(
            value.span(),
            "without `tokens`, everyone could purge and drain",
        );
        let help = "set `tokens`, or listen on 127.0.0.1 or unix:/run/seawall/admin.sock";
        value.reader().add_problem(problem.help(help));
    }
    Some(ConfiguredAddress {
        span: Some(value.span()),
        ..ConfiguredAddress::admin(address)
    })
}

const TOKENS: &str = "a list of tokens such as [{ name = \"deploy\", file = \"/run/secrets/deploy\", \
                      role = \"write\" }]";

/// `None` if a key is missing or has a problem, which is reported.
fn admin_token(value: TomlValue<'_>) -> ReadResult<Option<TokenSettings>> {
    value.table("tokens", |table| {
        for (key, example) in [
            ("name", "name = \"deploy\""),
            ("file", "file = \"/run/secrets/deploy\""),
            ("role", "role = \"read\""),
        ] {
            if table.value(key).is_none() {
                table.report_missing(key, example);
            }
        }
        let name = table.get("name", read::parsed(address::name, "a name"));
        let file = table.get("file", access::secret_file);
        let roles = [AdminRole::Read, AdminRole::Write].map(|role| (role.as_str(), role));
        let role = table.get("role", read::one_of(&roles, "\"read\" or \"write\""));
        Some(TokenSettings {
            name: name?,
            file: file?,
            role: role?,
        })
    })
}

/// A token has one value, and while it is renewed two.
fn check_names(value: TomlValue<'_>, tokens: &[TokenSettings]) -> ReadResult<()> {
    for token in tokens {
        let same = tokens.iter().filter(|other| other.name == token.name);
        let roles: Vec<_> = same.map(|other| other.role).collect();
        if roles.len() > 2 {
            return Err(value.problem(ValueError::new(TOKENS, "more than two have one name")));
        }
        if roles.iter().any(|role| *role != token.role) {
            let why = "two of one name have different roles";
            return Err(value.problem(ValueError::new(TOKENS, why)));
        }
    }
    Ok(())
}

/// Problems with addresses that are used twice.
pub(in crate::config) fn address_conflicts(addresses: &[ConfiguredAddress]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (start, later) in addresses.iter().enumerate() {
        if let Some(earlier) = addresses[..start]
            .iter()
            .find(|earlier| is_conflict(earlier, later))
        {
            problems.push(conflict(earlier, later));
        }
    }
    problems
}

fn is_conflict(one: &ConfiguredAddress, other: &ConfiguredAddress) -> bool {
    match (&one.address, &other.address) {
        (ListenAddress::Unix(one), ListenAddress::Unix(other)) => one == other,
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => {
            let same = one.port() == other.port() && one.port() != 0;
            same && (covers(one.ip(), other.ip()) || covers(other.ip(), one.ip()))
        }
        _ => false,
    }
}

fn covers(one: IpAddr, other: IpAddr) -> bool {
    one == other || (one.is_unspecified() && one.is_ipv4() == other.is_ipv4())
}

fn conflict(earlier: &ConfiguredAddress, later: &ConfiguredAddress) -> Problem {
    let address = match &later.address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    };
    let what = match later.used_as {
        AddressUse::Listener => format!("two listeners share the address {address}"),
        AddressUse::Admin => format!("admin shares the address {address} with a listener"),
    };
    match (&earlier.span, &later.span) {
        (Some(first), Some(second)) => Problem::new(what)
            .at(second.clone(), "taken already")
            .other(first.clone(), "taken by this one"),
        (None, Some(span)) => Problem::new(what).at(span.clone(), "taken by the default listener"),
        _ => Problem::new(what).help("give each its own address or port"),
    }
}
