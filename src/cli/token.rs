//! `seawall token`: makes signed URLs, and says what a token contains and whether it would be
//! admitted. It needs no running server.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{AddrParseError, IpAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::config;
use seawall_authorization::{
    CatKey, IpNet, SignedUrl, SigningKeys, TokenExplanation, TokenRejection, TokenValidity,
    explain, strip_line_end,
};

/// Make tokens for signed URLs, or say what a token contains
#[derive(Debug, Args)]
pub(super) struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Print a token that permits a path and everything below it
    Make(MakeToken),
    /// Print what a token contains: of a signed URL, or a Common Access Token
    Explain(ExplainToken),
}

#[derive(Debug, Args)]
struct MakeToken {
    /// The name of the key
    #[arg(long, value_name = "ID")]
    key_id: String,

    /// The file with the key's secret, of at least 32 bytes. A line end is left out
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,

    /// The path as viewers request it, such as `/live/match`
    #[arg(long, value_name = "PATH")]
    path: String,

    /// How long the token is valid, such as `6h`
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    #[arg(conflicts_with = "expires_at", required_unless_present = "expires_at")]
    expires_in: Option<Duration>,

    /// The first second since 1970 in which the token is not valid
    #[arg(long, value_name = "SECONDS")]
    expires_at: Option<u64>,

    /// The address or network that alone may use the token, such as `192.0.2.7` or `2001:db8::/56`
    #[arg(long, value_name = "NETWORK", value_parser = parse_network)]
    network: Option<IpNet>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 if the token would be admitted now, 1 if not: it has expired, is not yet valid, is \
malformed or its signature is wrong; also if the file of the secret cannot be used. 2 if the \
command line is invalid.")]
struct ExplainToken {
    /// The token, without the name of its parameter, cookie or header
    #[arg(value_name = "TOKEN")]
    token: String,

    /// Verify the signature with the secret in this file, or with the public key of a Common Access
    /// Token
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Token {
    /// Prints the token, or what it contains. Fails where there is none, and where it would not be
    /// admitted.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let (text, code) = match self.command {
            TokenCommand::Make(make) => {
                if let Some(warning) = make.warning(now) {
                    eprintln!("warning: {warning}");
                }
                (make.token(now)? + "\n", ExitCode::SUCCESS)
            }
            TokenCommand::Explain(explain) => {
                let (text, is_admitted) = explain.text(now)?;
                let code = if is_admitted {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                };
                (text, code)
            }
        };
        // The reader of stdout may be gone.
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(code)
    }
}

impl MakeToken {
    /// What is doubtful in the wish.
    fn warning(&self, now: Duration) -> Option<String> {
        let end = self.expires_at.filter(|end| *end <= now.as_secs())?;
        let ago = rough_duration(now.as_secs() - end);
        Some(format!(
            "the token has expired already, {ago} ago: --expires-at is in seconds since 1970, and \
             now is {}",
            now.as_secs()
        ))
    }

    fn token(self, now: Duration) -> anyhow::Result<String> {
        let end = |duration: Duration| (now + duration).as_secs();
        let expires_at = self.expires_at.or(self.expires_in.map(end));
        let keys = signing_keys(&self.key_id, &self.secret_file)?;
        let url = SignedUrl {
            key_id: self.key_id,
            path_prefix: self.path,
            expires_at: expires_at.context("the token needs an end")?,
            network: self.network,
        };
        Ok(keys.sign(&url)?)
    }
}

/// What is known of a token's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signature {
    /// There is no secret to verify it with.
    NotVerified,
    /// The secret has signed the token.
    Valid,
    /// It has not, for this reason.
    Wrong(TokenRejection),
}

impl Signature {
    /// The word of the JSON.
    fn as_str(self) -> &'static str {
        match self {
            Signature::NotVerified => "not verified",
            Signature::Valid => "valid",
            Signature::Wrong(_) => "wrong",
        }
    }
}

impl ExplainToken {
    /// What to print, and whether the token would be admitted.
    fn text(&self, now: Duration) -> anyhow::Result<(String, bool)> {
        let explanation = match explain(&self.token) {
            Ok(explanation) => explanation,
            Err(rejection) if self.json => {
                let answer = json!({ "admitted": false, "reason": rejection.as_str() });
                return Ok((format!("{answer}\n"), false));
            }
            Err(rejection) => return Err(rejection.into()),
        };
        let signature = self.signature()?;
        let rejection = rejection(&explanation.validity, signature, now.as_secs());
        if !self.json {
            let text = render_text(&explanation, signature, now.as_secs());
            return Ok((text, rejection.is_none()));
        }
        let TokenExplanation { format, fields, .. } = explanation;
        let fields: serde_json::Map<_, _> = fields
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect();
        let mut answer = json!({
            "format": format,
            "fields": fields,
            "signature": signature.as_str(),
            "admitted": rejection.is_none(),
        });
        if let Some(rejection) = rejection {
            answer["reason"] = rejection.as_str().into();
        }
        Ok((format!("{answer}\n"), rejection.is_none()))
    }

    /// Verifies the token, of which [`explain`] knows the format, if there is a secret for it.
    fn signature(&self) -> anyhow::Result<Signature> {
        let Some(file) = &self.secret_file else {
            return Ok(Signature::NotVerified);
        };
        let verified = if let Ok(url) = SignedUrl::read_unverified(&self.token) {
            signing_keys(&url.key_id, file)?.verify(&self.token).err()
        } else {
            let key = CatKey::of_file(&secret(file)?);
            let key = key.with_context(|| format!("{}", file.display()))?;
            key.verify_signature(&self.token).err()
        };
        Ok(verified.map_or(Signature::Valid, Signature::Wrong))
    }
}

/// Why the token would be refused now, whatever it is sent for. A route may accept one without an
/// end.
fn rejection(validity: &TokenValidity, signature: Signature, now: u64) -> Option<TokenRejection> {
    if let Signature::Wrong(rejection) = signature {
        return Some(rejection);
    }
    let refused = validity.check(now).err();
    refused.or_else(|| {
        let has_end = validity.expires_at.is_some();
        (!has_end).then_some(TokenRejection::NoExpiry)
    })
}

/// Whether the token would be admitted now, in words.
fn verdict(validity: &TokenValidity, signature: Signature, now: u64) -> String {
    let since = |then: u64| rough_duration(now.abs_diff(then));
    match rejection(validity, signature, now) {
        Some(TokenRejection::Expired) => {
            let ago = since(validity.expires_at.unwrap_or_default());
            format!("REFUSED: EXPIRED {ago} ago")
        }
        Some(TokenRejection::NotYetValid) => {
            let wait = since(validity.not_before.unwrap_or_default());
            format!("REFUSED: NOT YET VALID, only in {wait}")
        }
        Some(TokenRejection::NoExpiry) => {
            "REFUSED: it has no end, unless the route has accept_no_expiry = true".to_owned()
        }
        Some(other) => format!("REFUSED: {other}"),
        None => {
            let end = since(validity.expires_at.unwrap_or_default());
            let condition = if signature == Signature::NotVerified {
                ", if a key of the route has signed it"
            } else {
                ""
            };
            format!("admitted for what it permits, for another {end}{condition}")
        }
    }
}

/// In the largest unit of which there is at least one.
fn rough_duration(seconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("day", 86_400),
        ("hour", 3600),
        ("minute", 60),
        ("second", 1),
    ];
    let unit = UNITS.into_iter().find(|(_, length)| seconds >= *length);
    let (unit, length) = unit.unwrap_or(("second", 1));
    match seconds / length {
        1 => format!("1 {unit}"),
        count => format!("{count} {unit}s"),
    }
}

fn render_text(explanation: &TokenExplanation, signature: Signature, now: u64) -> String {
    let mut text = format!("{}\n", explanation.format);
    let verdict = verdict(&explanation.validity, signature, now);
    let signature = match signature {
        Signature::Wrong(TokenRejection::Signature) => "WRONG".to_owned(),
        Signature::Wrong(why) => format!("WRONG: {why}"),
        other => other.as_str().to_owned(),
    };
    let fields = explanation.fields.iter();
    let fields = fields.map(|(name, value)| (name.as_str(), value.as_str()));
    let fields = [("now", verdict.as_str())].into_iter().chain(fields);
    for (name, value) in fields.chain([("signature", signature.as_str())]) {
        // A token is whatever someone sent: no control characters for the terminal.
        let value: String = value.chars().filter(|char| !char.is_control()).collect();
        let _ = writeln!(text, "  {name:12} {value}");
    }
    text
}

/// An address, or a network, without the bits that do not count.
fn parse_network(text: &str) -> Result<IpNet, &'static str> {
    let address = text
        .parse::<IpAddr>()
        .map(|address| address.to_canonical().into());
    let network = address.or_else(|_: AddrParseError| text.parse::<IpNet>());
    let network =
        network.map_err(|_| "an address such as 192.0.2.7, or a network such as 2001:db8::/56");
    network.map(|network| network.trunc())
}

fn signing_keys(id: &str, file: &Path) -> anyhow::Result<SigningKeys> {
    let secret = secret(file)?;
    SigningKeys::new([(id, secret.as_slice())]).with_context(|| format!("{}", file.display()))
}

/// What the file contains, without a line end.
fn secret(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut text =
        std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    strip_line_end(&mut text);
    Ok(text)
}

#[cfg(test)]
mod tests;
