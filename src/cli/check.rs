//! `seawall check`: reports all problems of configuration files and summarises what the files do,
//! or says what differs between two.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgAction, Args};
use serde_json::{Value, json};

use super::is_colour_wanted;
use crate::config::{Change, CheckScope, Config, Problems};
use crate::frontend::{ListenAddress, Listener};
use seawall_policy::Route;
use seawall_upstream;

/// The exit code if the files of `--diff` differ. 1 is an invalid file, 2 an invalid command line.
const DIFFERENT: u8 = 3;

/// Report every problem in configuration files, or what differs between two.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 if every file is good, 1 if one has an error, 2 if the command line is invalid, 3 if \
the files of --diff are good and differ.")]
pub(super) struct CheckArguments {
    /// The files to check
    #[arg(value_name = "FILE", required_unless_present = "diff")]
    files: Vec<PathBuf>,

    /// Check two files, and say by key what differs between them; secrets are not shown
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with = "files")]
    #[arg(action = ArgAction::Set)]
    diff: Vec<PathBuf>,

    /// Check the files only, not names, addresses and memory of this machine
    #[arg(long)]
    offline: bool,

    /// Exit with 1 for warnings too
    #[arg(long)]
    strict: bool,

    /// Print only the problems, or the problems and the differences, as JSON
    #[arg(long)]
    json: bool,
}

/// A file that was checked.
struct CheckedFile {
    path: PathBuf,
    /// `None` if the file has errors.
    config: Option<Config>,
    problems: Problems,
}

impl CheckedFile {
    fn to_json(&self) -> Value {
        let file = self.path.display().to_string();
        json!({ "file": file, "problems": self.problems.to_json() })
    }

    fn print_problems(&self) {
        if !self.problems.is_empty() {
            eprintln!("{}\n", self.problems.render(is_colour_wanted()));
        }
    }
}

impl CheckArguments {
    /// Checks every file. Fails if any has an error, or a warning with `--strict`.
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let out = &mut std::io::stdout();
        match &self.diff[..] {
            [before, after] => self.write_diff([before, after], out),
            _ => self.write_report(out).map(|()| ExitCode::SUCCESS),
        }
    }

    fn write_report(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let mut checked = Vec::new();
        for file in &self.files {
            let file = self.check(file.clone());
            if !self.json {
                if let Some(config) = &file.config {
                    let summary = summary(&file.path, config, file.problems.warnings());
                    // The reader of stdout may be gone; the exit code still has the result.
                    let _ = out.write_all(summary.as_bytes());
                }
                file.print_problems();
            }
            checked.push(file);
        }
        if self.json {
            let files: Value = checked.iter().map(CheckedFile::to_json).collect();
            let _ = writeln!(out, "{files:#}");
        }
        self.fail_on_problems(&checked)
    }

    fn write_diff(&self, files: [&PathBuf; 2], out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let [before, after] = with_comparable_folders(files).map(|file| self.check(file));
        let configs = before.config.as_ref().zip(after.config.as_ref());
        let changes = configs.map(|(before, after)| before.changes_to(after));
        let checked = [before, after];
        if self.json {
            let files: Value = checked.iter().map(CheckedFile::to_json).collect();
            let mut report = json!({ "files": files });
            if let Some(changes) = &changes {
                report["changes"] = changes.iter().map(Change::to_json_with_effect).collect();
            }
            let _ = writeln!(out, "{report:#}");
        } else {
            checked.iter().for_each(CheckedFile::print_problems);
            if let Some(changes) = &changes {
                let _ = out.write_all(describe_changes(files, changes).as_bytes());
            }
        }
        self.fail_on_problems(&checked)?;
        let is_equal = changes.is_none_or(|changes| changes.is_empty());
        Ok(if is_equal {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(DIFFERENT)
        })
    }

    fn check(&self, path: PathBuf) -> CheckedFile {
        let scope = if self.offline {
            CheckScope::Offline
        } else {
            CheckScope::Network
        };
        let (config, problems) = match Config::check(&path, scope) {
            Ok((config, problems)) => (Some(config), problems),
            Err(problems) => (None, problems),
        };
        CheckedFile {
            path,
            config,
            problems,
        }
    }

    /// Fails if one of the files has an error, or a warning with `--strict`.
    fn fail_on_problems(&self, checked: &[CheckedFile]) -> anyhow::Result<()> {
        let errors: usize = checked.iter().map(|file| file.problems.errors()).sum();
        let warnings: usize = checked.iter().map(|file| file.problems.warnings()).sum();
        if errors > 0 || (self.strict && warnings > 0) {
            anyhow::bail!("{}", describe_counts(errors, warnings));
        }
        Ok(())
    }
}

/// Two files in one folder have the same relative paths only if the folder is written in the same
/// way: `a.toml` and `./b.toml` become absolute.
fn with_comparable_folders(files: [&PathBuf; 2]) -> [PathBuf; 2] {
    let [before, after] = files;
    if before.parent() == after.parent() {
        return files.map(Clone::clone);
    }
    files.map(|file| {
        let folder = file.parent().filter(|folder| *folder != Path::new(""));
        let folder = folder.unwrap_or(Path::new(".")).canonicalize();
        // Of a folder that cannot be read, the check reports the file.
        match (folder, file.file_name()) {
            (Ok(folder), Some(name)) => folder.join(name),
            _ => file.clone(),
        }
    })
}

/// The differences, one a line.
fn describe_changes([before, after]: [&PathBuf; 2], changes: &[Change]) -> String {
    let (before, after) = (before.display(), after.display());
    let mut text = match changes.len() {
        0 => return format!("no difference between {before} and {after}\n"),
        1 => format!("1 difference between {before} and {after}:\n"),
        count => format!("{count} differences between {before} and {after}:\n"),
    };
    for change in changes {
        let _ = writeln!(text, "  {}", change.text_with_effect());
    }
    text.push_str(
        "A reload applies what needs no restart: SIGHUP, POST /reload or `seawall reload`.\n",
    );
    text
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
    if let Some(admin) = &config.admin.listen {
        line("admin", admin.to_string());
    }
    for route in &config.rules.routes {
        line("route", route_line(route));
    }
    for origin in &config.origins {
        let routes = &config.rules.routes;
        let mut routes = routes.iter().filter(|route| route.redirect.is_none());
        let is_used = routes.any(|route| route.origin == origin.name);
        line("origin", origin_line(origin, is_used));
        for text in config.preset_lines(&origin.name) {
            line("", text);
        }
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
    let (name, path) = (&route.name, &route.path_prefix);
    match &route.redirect {
        Some(redirect) => {
            let status = redirect.status.as_u16();
            format!(
                "{name}: {hosts} {path} -> redirect {status} to {}",
                redirect.to
            )
        }
        None => format!("{name}: {hosts} {path} -> {}", route.origin),
    }
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
            diff: Vec::new(),
            offline: true,
            strict: false,
            json: false,
        };
        check.write_report(&mut out)?;
        Ok(String::from_utf8(out)?)
    }

    /// One file with a warning in it.
    const DOUBTFUL: &str = "[[origin]]\nverify = false\nendpoints = [\"https://origin.example\"]\n\
                            [[route]]\nunkeyed_headers = [\"X-Edge\"]\n";

    #[test]
    fn accepts_warnings_unless_strict() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seawall.toml");
        std::fs::write(&file, DOUBTFUL).unwrap();
        let check = |strict, json| {
            let mut out = Vec::new();
            let check = CheckArguments {
                files: vec![file.clone()],
                diff: Vec::new(),
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
    fn prints_what_the_kind_of_an_origin_sets() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seawall.toml");
        let source = "[[origin]]\nkind = \"srs\"\nendpoints = [\"http://a.example\"]\n\
                      [origin.health]\n[[route]]\nquery = \"none\"\n[[route]]\npath = \"/x\"\n";
        std::fs::write(&file, source).unwrap();
        let text = summary(&file, &Config::load(&file).unwrap(), 0);
        let expected = [
            "kind \"srs\" sets [origin.health]: path = \"/api/v1/versions\", expect = [200]",
            "kind \"srs\" sets [[route]] \"/x\": query = { manifest = { only = [\"vhost\"",
            "kind \"srs\" needs at the server: set hls_ctx off",
        ];
        for line in expected {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("\"default\": query"), "{text}");
    }

    #[test]
    fn redirect_names_its_target_and_no_origin() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seawall.toml");
        let source = "[[origin]]\nname = \"main\"\nendpoints = [\"http://a.example\"]\n\
                      [[route]]\nname = \"old\"\npath = \"/old\"\n\
                      redirect = { to = \"https://new.example/live\", status = 308 }\n";
        std::fs::write(&file, source).unwrap();
        let text = summary(&file, &Config::load(&file).unwrap(), 0);
        let redirect = "old: every host /old -> redirect 308 to https://new.example/live\n";
        assert!(text.contains(redirect), "{text}");
        assert!(text.contains("(no route uses it)"), "{text}");
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
