//! `seawall token`: makes signed URLs, and says what a token contains. It needs no running server.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{AddrParseError, IpAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::config;
use seawall_authorization::{
    IpNet, SignedUrl, SigningKeys, TokenExplanation, TokenRejection, TokenValidity, explain,
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
struct ExplainToken {
    /// The token, without the name of its parameter, cookie or header
    #[arg(value_name = "TOKEN")]
    token: String,

    /// Verify the signed URL with the secret in this file
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Token {
    /// Prints the token, or what it contains. Fails where there is none.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let text = match self.command {
            TokenCommand::Make(make) => make.token(now.unwrap_or_default())? + "\n",
            TokenCommand::Explain(explain) => explain.text(now.unwrap_or_default())?,
        };
        // The reader of stdout may be gone.
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(())
    }
}

impl MakeToken {
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

impl ExplainToken {
    fn text(&self, now: Duration) -> anyhow::Result<String> {
        let explanation = explain(&self.token)?;
        let mut signature = NOT_VERIFIED;
        if let Some(file) = &self.secret_file {
            let url = SignedUrl::read_unverified(&self.token);
            let url = url.context("--secret-file verifies signed URLs only")?;
            signing_keys(&url.key_id, file)?.verify(&self.token)?;
            signature = "valid";
        }
        let rejection = rejection(&explanation.validity, now.as_secs());
        if !self.json {
            return Ok(render_text(&explanation, signature, now.as_secs()));
        }
        let TokenExplanation { format, fields, .. } = explanation;
        let fields: serde_json::Map<_, _> = fields
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect();
        let mut answer = json!({
            "format": format,
            "fields": fields,
            "signature": signature,
            "admitted": rejection.is_none(),
        });
        if let Some(rejection) = rejection {
            answer["reason"] = rejection.as_str().into();
        }
        Ok(format!("{answer}\n"))
    }
}

const NOT_VERIFIED: &str = "not verified";

/// Why the token would be refused now, whatever it is sent for. A route may accept one without an
/// end.
fn rejection(validity: &TokenValidity, now: u64) -> Option<TokenRejection> {
    let refused = validity.check(now).err();
    refused.or_else(|| {
        let has_end = validity.expires_at.is_some();
        (!has_end).then_some(TokenRejection::NoExpiry)
    })
}

/// Whether the token would be admitted now, in words.
fn verdict(validity: &TokenValidity, signature: &str, now: u64) -> String {
    let since = |then: u64| rough_duration(now.abs_diff(then));
    match rejection(validity, now) {
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
            let condition = if signature == NOT_VERIFIED {
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

fn render_text(explanation: &TokenExplanation, signature: &str, now: u64) -> String {
    let mut text = format!("{}\n", explanation.format);
    let verdict = verdict(&explanation.validity, signature, now);
    let fields = explanation.fields.iter();
    let fields = fields.map(|(name, value)| (name.as_str(), value.as_str()));
    let fields = [("now", verdict.as_str())].into_iter().chain(fields);
    for (name, value) in fields.chain([("signature", signature)]) {
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
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let secret = text.strip_suffix(b"\n").unwrap_or(&text);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    SigningKeys::new([(id, secret)]).with_context(|| format!("{}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "1.new.1767225660.L2xpdmU..gse9lUrK0ZA_Nl1hOs10ZGVywZrlYo1wyrARMvAd-QA";

    /// A file with the secret that signed [`TOKEN`].
    fn secret_file(folder: &tempfile::TempDir) -> PathBuf {
        let file = folder.path().join("secret");
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        file
    }

    fn make(secret_file: PathBuf) -> MakeToken {
        MakeToken {
            key_id: "new".to_owned(),
            secret_file,
            path: "/live".to_owned(),
            expires_in: Some(Duration::from_mins(1)),
            expires_at: None,
            network: None,
        }
    }

    fn explain_token(
        token: &str,
        secret_file: Option<PathBuf>,
        json: bool,
    ) -> anyhow::Result<String> {
        let token = token.to_owned();
        ExplainToken {
            token,
            secret_file,
            json,
        }
        .text(NOW)
    }

    /// Before the last minute of [`TOKEN`] ends.
    const NOW: Duration = Duration::from_secs(1_767_225_601);

    #[test]
    fn makes_the_token_that_the_documents_describe() {
        let folder = tempfile::tempdir().unwrap();
        let now = Duration::new(1_767_225_600, 999_999_999);
        let token = make(secret_file(&folder)).token(now).unwrap();
        assert_eq!(token, TOKEN);
    }

    #[test]
    fn says_why_it_makes_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let error = |make: MakeToken| format!("{:#}", make.token(Duration::ZERO).unwrap_err());
        let other_path = MakeToken {
            path: "live".to_owned(),
            ..make(secret_file(&folder))
        };
        assert!(error(other_path).contains("must begin with `/`"));
        let missing = make(folder.path().join("missing"));
        assert!(error(missing).contains("cannot read"));
        let short = folder.path().join("short");
        std::fs::write(&short, "guess\n").unwrap();
        let short = error(make(short));
        assert!(
            short.contains("32 bytes") && !short.contains("guess"),
            "{short}"
        );
    }

    #[test]
    fn explains_and_verifies_a_signed_url() {
        let folder = tempfile::tempdir().unwrap();
        let text = explain_token(TOKEN, Some(secret_file(&folder)), false).unwrap();
        let expected = "signed URL\n  \
                          now          admitted for what it permits, for another 59 seconds\n  \
                          key id       new\n  \
                          path         /live\n  \
                          expires at   1767225660 (Thu, 01 Jan 2026 00:01:00 GMT)\n  \
                          network      any\n  \
                          signature    valid\n";
        assert_eq!(text, expected);
        let forged = TOKEN.replace(".1767225660.", ".1767225661.");
        let forged = explain_token(&forged, Some(secret_file(&folder)), false).unwrap_err();
        assert_eq!(forged.to_string(), "the signature is wrong");
    }

    #[test]
    fn explains_a_common_access_token_as_json() {
        // An issuer, and a claim of its own. Whether the MAC is right takes its key.
        let token = "0YRDoQEFoQRBYUaiAWFhIABBAA";
        let json = explain_token(token, None, true).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["format"], "Common Access Token");
        assert_eq!(json["fields"]["algorithm"], "HS256");
        assert_eq!(json["fields"]["iss"], "\"a\"");
        assert_eq!(json["signature"], "not verified");
        // It has no end.
        assert_eq!(json["admitted"], false);
        assert_eq!(json["reason"], "no_expiry");
    }

    #[test]
    fn says_whether_the_token_would_be_admitted_now() {
        let validity = |not_before, expires_at| TokenValidity {
            never: None,
            not_before,
            expires_at,
        };
        let hour = validity(Some(7200), Some(10_800));
        let verdict = |validity: &TokenValidity, now| verdict(validity, "valid", now);
        assert_eq!(verdict(&hour, 10_860), "REFUSED: EXPIRED 1 minute ago");
        assert_eq!(verdict(&hour, 10_800), "REFUSED: EXPIRED 0 seconds ago");
        assert_eq!(verdict(&hour, 0), "REFUSED: NOT YET VALID, only in 2 hours");
        let admitted = "admitted for what it permits, for another 30 seconds";
        assert_eq!(verdict(&hour, 10_770), admitted);
        let endless = verdict(&validity(None, None), 5);
        assert!(endless.contains("accept_no_expiry"), "{endless}");
        let never = TokenValidity {
            never: Some(TokenRejection::Claim(309)),
            ..validity(None, None)
        };
        let never = verdict(&never, 5);
        assert!(never.starts_with("REFUSED: the claim 309"), "{never}");
        // Without the secret, nobody knows who made it.
        let text = explain_token(TOKEN, None, false).unwrap();
        assert!(
            text.contains("if a key of the route has signed it"),
            "{text}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&explain_token(TOKEN, None, true).unwrap()).unwrap();
        assert_eq!(
            (&json["admitted"], json.get("reason")),
            (&true.into(), None)
        );
    }
}
