//! `seawall check`: reports all problems of configuration files, or summarises what they do.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::is_colour_wanted;
use crate::config::{CheckScope, Config};
use crate::frontend::{ListenAddress, Listener};
use seawall_policy::Route;
use seawall_upstream;

/// Report every problem in configuration files.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// The files to check
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Check the files only, not names, addresses and memory of this machine
    #[arg(long)]
    offline: bool,

    /// Exit with 1 for warnings too
    #[arg(long)]
    strict: bool,

    /// Print only the problems, as JSON
    #[arg(long)]
    json: bool,
}

impl CheckArguments {
    /// Checks every file. Fails if any has an error, or a warning with `--strict`.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        self.write_report(&mut std::io::stdout())
    }

    fn write_report(&self, out: &mut impl std::io::Write) -> anyhow::Result<()> {
        let scope = if self.offline {
            CheckScope::Offline
        } else {
            CheckScope::Network
        };
        let mut reports = Vec::new();
        let (mut errors, mut warnings) = (0, 0);
        for file in &self.files {
            let (config, problems) = match Config::check(file, scope) {
                Ok((config, problems)) => (Some(config), problems),
                Err(problems) => (None, problems),
            };
            errors += problems.errors();
            warnings += problems.warnings();
            if self.json {
                let (file, problems) = (file.display().to_string(), problems.to_json());
                reports.push(serde_json::json!({ "file": file, "problems": problems }));
                continue;
            }
            if let Some(config) = config {
                // The reader of stdout may be gone; the exit code still has the result.
                let _ = out.write_all(summary(file, &config, problems.warnings()).as_bytes());
            }
            if !problems.is_empty() {
                eprintln!("{}\n", problems.render(is_colour_wanted()));
            }
        }
        if self.json {
            let _ = writeln!(out, "{:#}", serde_json::Value::from(reports));
        }
        if errors > 0 || (self.strict && warnings > 0) {
            anyhow::bail!("{}", describe_counts(errors, warnings));
        }
        Ok(())
    }
}

/// The number of problems, in words.
fn describe_counts(errors: usize, warnings: usize) -> String {
    let count_text = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        count => Some(format!("{count} {word}s")),
    };
    let counts = [
        count_text(errors, "problem"),
        count_text(warnings, "warning"),
    ];
    counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A short summary of a configuration.
fn summary(file: &Path, config: &Config, warnings: usize) -> String {
    let mut text = match describe_counts(0, warnings).as_str() {
        "" => format!("{}: good\n", file.display()),
        count_text => format!("{}: good, with {count_text}\n", file.display()),
    };
    let mut line = |word: &str, rest: String| {
        let _ = writeln!(text, "  {word:<9} {rest}");
    };
    for listener in &config.frontend.listeners {
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
        let is_used = routes.iter().any(|route| route.origin == origin.name);
        line("origin", origin_line(origin, is_used));
    }
    line("memory", format!("{} MiB", config.cache.memory_bytes >> 20));
    text
}

fn listener_line(listener: &Listener) -> String {
    let address = match &listener.address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
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

fn origin_line(origin: &seawall_upstream::Settings, is_used: bool) -> String {
    let endpoints: Vec<_> = origin.endpoints.iter().map(endpoint_text).collect();
    let mut text = format!("{}: {}", origin.name, endpoints.join(", "));
    if !origin.verify {
        text.push_str(" (certificates are NOT checked)");
    }
    if let Some(sigv4) = &origin.sigv4 {
        let service = sigv4.service.as_str();
        let _ = write!(
            text,
            " (signed for {service} in {})",
            regions(origin, sigv4)
        );
    }
    if !is_used {
        text.push_str(" (no route uses it)");
    }
    text
}

/// The regions of an origin's endpoints, without duplicates, in their order.
fn regions(origin: &seawall_upstream::Settings, sigv4: &seawall_upstream::sign::Sigv4) -> String {
    let mut regions: Vec<&str> = Vec::new();
    for endpoint in &origin.endpoints {
        let endpoint_region = endpoint.region.as_deref().or(endpoint.region_in_host());
        let region = endpoint_region
            .or(sigv4.region.as_deref())
            .unwrap_or("no region");
        if !regions.contains(&region) {
            regions.push(region);
        }
    }
    regions.join(", ")
}

fn endpoint_text(endpoint: &seawall_upstream::Endpoint) -> String {
    let scheme = if endpoint.tls { "https" } else { "http" };
    if endpoint.host.contains(':') {
        return format!("{scheme}://[{}]:{}", endpoint.host, endpoint.port);
    }
    format!("{scheme}://{}:{}", endpoint.host, endpoint.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(files: Vec<PathBuf>) -> anyhow::Result<String> {
        let mut out = Vec::new();
        let check = CheckArguments {
            files,
            offline: true,
            strict: false,
            json: false,
        };
        check.write_report(&mut out)?;
        Ok(String::from_utf8(out)?)
    }

    /// One file with a warning in it.
    const DOUBTFUL: &str = "[admin]\nlisten = \"192.0.2.1:9090\"\n[[origin]]\n\
                            endpoints = [\"https://origin.example\"]\nverify = false\n";

    #[test]
    fn accepts_warnings_unless_strict() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seawall.toml");
        std::fs::write(&file, DOUBTFUL).unwrap();
        let check = |strict, json| {
            let mut out = Vec::new();
            let check = CheckArguments {
                files: vec![file.clone()],
                offline: true,
                strict,
                json,
            };
            let result = check.write_report(&mut out).map_err(|why| why.to_string());
            (result, String::from_utf8(out).unwrap())
        };
        let (result, text) = check(false, false);
        assert_eq!(result, Ok(()));
        assert!(
            text.contains("seawall.toml: good, with 2 warnings"),
            "{text}"
        );
        assert_eq!(check(true, false).0, Err("2 warnings".to_owned()));
        let (result, text) = check(false, true);
        assert_eq!(result, Ok(()));
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        let problems = read[0]["problems"].as_array().unwrap();
        assert_eq!(problems.len(), 2, "{read}");
        assert_eq!(problems[0]["severity"], "warning");
        assert_eq!(problems[0]["line"], 2);
        assert_eq!(problems[1]["line"], 5);
    }

    fn check(source: &str) -> anyhow::Result<String> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("seawall.toml");
        std::fs::write(&file, source)?;
        report(vec![file])
    }

    #[test]
    fn accepts_valid_files_and_rejects_invalid_ones() {
        assert!(check("[[origin]]\nendpoints = [\"https://origin.example\"]\n").is_ok());
        let two = check("[[origin]]\nendpoints = []\nnme = \"x\"\n").unwrap_err();
        assert_eq!(two.to_string(), "2 problems");
        assert!(report(vec!["/nowhere/at/all.toml".into()]).is_err());
    }

    #[test]
    fn prints_a_summary_without_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seawall.toml");
        let source = "[admin]\nlisten = \"127.0.0.1:9090\"\n[[origin]]\nname = \"main\"\n\
                      endpoints = [\"https://[2001:db8::1]\"]\nverify = false\n\
                      headers = { X-Token = \"s3cret\" }\n\
                      sigv4 = { region = \"eu-west-1\", service = \"s3\" }\n";
        std::fs::write(&file, source).unwrap();
        let text = summary(&file, &Config::load(&file).unwrap(), 0);
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
