//! `seawall check`: everything that is wrong with files, or a few lines on what they would do.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::wants_colour;
use crate::config::{Config, Reach};
use crate::edge::{Address, Listener};
use crate::origin;
use crate::policy::Route;

/// Say everything that is wrong with configuration files.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Neither resolve names nor look for addresses: the files are meant for other machines
    #[arg(long)]
    offline: bool,
}

impl Check {
    /// Checks every file; an error if any has a problem.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        self.tell(&mut std::io::stdout())
    }

    fn tell(&self, out: &mut impl std::io::Write) -> anyhow::Result<()> {
        let reach = if self.offline {
            Reach::Offline
        } else {
            Reach::Network
        };
        let mut wrong = 0;
        for file in &self.files {
            match Config::check(file, reach) {
                Ok(config) => {
                    // Who reads it may have left; the exit code says it all the same.
                    let _ = out.write_all(summary(file, &config).as_bytes());
                }
                Err(problems) => {
                    wrong += problems.len();
                    eprintln!("{}\n", problems.render(wants_colour()));
                }
            }
        }
        match wrong {
            0 => Ok(()),
            1 => anyhow::bail!("1 problem"),
            many => anyhow::bail!("{many} problems"),
        }
    }
}

/// What a configuration does, in a few lines.
fn summary(file: &Path, config: &Config) -> String {
    let mut text = format!("{}: good\n", file.display());
    let mut line = |word: &str, rest: String| {
        let _ = writeln!(text, "  {word:<9} {rest}");
    };
    for listener in &config.edge.listeners {
        line("listener", listener_line(listener));
    }
    if let Some(admin) = config.admin.listen {
        line("admin", admin.to_string());
    }
    for route in &config.rules.routes {
        line("route", route_line(route));
    }
    for origin in &config.origins {
        let routes = &config.rules.routes;
        let used = routes.iter().any(|route| route.origin == origin.name);
        line("origin", origin_line(origin, used));
    }
    line("memory", format!("{} MiB", config.cache.memory_bytes >> 20));
    text
}

fn listener_line(listener: &Listener) -> String {
    let address = match &listener.address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", path.display()),
    };
    match &listener.tls {
        Some(tls) => format!("{address} (TLS, certificates: {})", tls.certificates.len()),
        None => address,
    }
}

fn route_line(route: &Route) -> String {
    let hosts = if route.hosts.is_empty() {
        "every host".into()
    } else {
        route.hosts.join(", ")
    };
    format!(
        "{}: {hosts} {} -> {}",
        route.name, route.path_prefix, route.origin
    )
}

fn origin_line(origin: &origin::Settings, used: bool) -> String {
    let endpoints: Vec<_> = origin.endpoints.iter().map(endpoint_text).collect();
    let mut text = format!("{}: {}", origin.name, endpoints.join(", "));
    if !origin.verify {
        text.push_str(" (certificates are NOT checked)");
    }
    if let Some(sigv4) = &origin.sigv4 {
        let (service, region) = (sigv4.service.as_str(), &sigv4.region);
        let _ = write!(text, " (signed for {service} in {region})");
    }
    if !used {
        text.push_str(" (no route uses it)");
    }
    text
}

fn endpoint_text(endpoint: &origin::Endpoint) -> String {
    let scheme = if endpoint.tls { "https" } else { "http" };
    if endpoint.host.contains(':') {
        return format!("{scheme}://[{}]:{}", endpoint.host, endpoint.port);
    }
    format!("{scheme}://{}:{}", endpoint.host, endpoint.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(files: Vec<PathBuf>) -> anyhow::Result<String> {
        let mut out = Vec::new();
        let check = Check {
            files,
            offline: true,
        };
        check.tell(&mut out)?;
        Ok(String::from_utf8(out)?)
    }

    fn check(source: &str) -> anyhow::Result<String> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("seawall.toml");
        std::fs::write(&file, source)?;
        told(vec![file])
    }

    #[test]
    fn good_files_pass_and_bad_ones_do_not() {
        assert!(check("[[origin]]\nendpoints = [\"https://origin.example\"]\n").is_ok());
        let two = check("[[origin]]\nendpoints = []\nnme = \"x\"\n").unwrap_err();
        assert_eq!(two.to_string(), "2 problems");
        assert!(told(vec!["/nowhere/at/all.toml".into()]).is_err());
    }

    #[test]
    fn the_summary_names_what_matters_and_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seawall.toml");
        let source = "[admin]\nlisten = \"127.0.0.1:9090\"\n[[origin]]\nname = \"main\"\n\
                      endpoints = [\"https://[2001:db8::1]\"]\nverify = false\n\
                      headers = { X-Token = \"s3cret\" }\n\
                      sigv4 = { region = \"eu-west-1\", service = \"s3\" }\n";
        std::fs::write(&file, source).unwrap();
        let text = summary(&file, &Config::load(&file).unwrap());
        assert!(text.contains("0.0.0.0:8080"), "{text}");
        assert!(text.contains("127.0.0.1:9090"), "{text}");
        assert!(text.contains("default: every host / -> main"), "{text}");
        assert!(
            text.contains("https://[2001:db8::1]:443 (certificates are NOT"),
            "{text}"
        );
        assert!(text.contains("(signed for s3 in eu-west-1)"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}
