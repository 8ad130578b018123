//! The client of the admin server: a request over TCP or a Unix socket, with a token and a deadline
//! for everything.
//!
//! Plain sockets, so that a container needs no other tool and a health check starts no runtime.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::admin::AdminAddress;
use crate::config;

/// The address when neither an option nor the environment names one.
const ADMIN: &str = "127.0.0.1:9090";

/// The environment variable with the address.
const ADMIN_VARIABLE: &str = "SEAWALL_ADMIN";

/// The environment variable with the path of the token's file.
const TOKEN_VARIABLE: &str = "SEAWALL_ADMIN_TOKEN_FILE";

/// More than the largest answer, the metrics of thousands of streams.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How to reach the admin server.
#[derive(Debug, Default, Args)]
pub(super) struct AdminArguments {
    #[arg(
        help = "Address of the admin server: IP:PORT or unix:/PATH \
                [default: SEAWALL_ADMIN, else 127.0.0.1:9090]",
        long,
        value_name = "ADDRESS",
        value_parser = config::parse_admin_address
    )]
    pub(super) admin: Option<AdminAddress>,

    /// File with the token, if the server needs one [default: `SEAWALL_ADMIN_TOKEN_FILE`]
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

/// Sends requests to one server.
pub(super) struct AdminClient {
    address: AdminAddress,
    token: Option<String>,
}

/// The answer to a request.
pub(super) struct AdminReply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// The admin address from the environment, if set.
pub(super) fn address_from_environment() -> anyhow::Result<Option<AdminAddress>> {
    let Some(text) = environment(ADMIN_VARIABLE) else {
        return Ok(None);
    };
    let text = text.to_string_lossy();
    let address = config::parse_admin_address(&text);
    Ok(Some(address.with_context(|| {
        format!("{ADMIN_VARIABLE} is not an address such as {ADMIN}")
    })?))
}

fn environment(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|text| !text.is_empty())
}

impl AdminArguments {
    /// A client with these options; what is missing is taken from the environment.
    pub(super) fn client(&self) -> anyhow::Result<AdminClient> {
        let address = match &self.admin {
            Some(address) => address.clone(),
            None => match address_from_environment()? {
                Some(address) => address,
                None => config::parse_admin_address(ADMIN)?,
            },
        };
        let token_file = self.token_file.clone();
        let token_file = token_file.or_else(|| environment(TOKEN_VARIABLE).map(PathBuf::from));
        let token = token_file.as_deref().map(read_token).transpose()?;
        Ok(AdminClient { address, token })
    }
}

fn read_token(file: &Path) -> anyhow::Result<String> {
    let what = || format!("cannot read the token in {}", file.display());
    let text = fs::read_to_string(file).with_context(what)?;
    let token = text.trim_end_matches(['\r', '\n']);
    let is_sendable = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    anyhow::ensure!(is_sendable, "{} contains no token", file.display());
    if fs::metadata(file).is_ok_and(|data| data.permissions().mode() & 0o007 != 0) {
        let file = file.display();
        eprintln!("warning: every user of this machine may read {file}: chmod 600 {file}");
    }
    Ok(token.to_owned())
}

impl AdminClient {
    /// The server's address.
    pub(super) fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// The answer to a request. The error says what to do when nobody answers.
    pub(super) fn request(
        &self,
        method: &str,
        target: &str,
        timeout: Duration,
    ) -> anyhow::Result<AdminReply> {
        let answer = self.exchange(method, target, Instant::now() + timeout);
        answer.with_context(|| {
            let address = &self.address;
            format!(
                "no answer from {address}: is the server running, with this address as `listen` \
                 of [admin]? --admin or {ADMIN_VARIABLE} name another one"
            )
        })
    }

    /// The JSON of a good answer. Everything else is an error that says what the server said.
    pub(super) fn request_json(
        &self,
        method: &str,
        target: &str,
        timeout: Duration,
    ) -> anyhow::Result<Value> {
        let reply = self.request(method, target, timeout)?;
        let body = serde_json::from_slice::<Value>(&reply.body).ok();
        let reason = || {
            let error = body.as_ref().and_then(|body| body["error"].as_str());
            let error = error.unwrap_or("the answer says no more");
            // The program writes this word itself.
            error.strip_prefix("error: ").unwrap_or(error).to_owned()
        };
        match (reply.status, body.as_ref()) {
            (200..=299, Some(_)) => Ok(body.unwrap_or_default()),
            (401, _) => anyhow::bail!(
                "{}: name a file with a token in --token-file or {TOKEN_VARIABLE}",
                reason()
            ),
            (status, Some(_)) => anyhow::bail!("{}", with_status(&reason(), status)),
            (status, None) => {
                anyhow::bail!("{} is no admin server (status {status})", self.address)
            }
        }
    }

    fn exchange(&self, method: &str, target: &str, deadline: Instant) -> io::Result<AdminReply> {
        let (domain, address, host) = match &self.address {
            AdminAddress::Tcp(address) => (
                Domain::for_address(*address),
                SockAddr::from(*address),
                address.to_string(),
            ),
            AdminAddress::Unix(path) => {
                let address = SockAddr::unix(path)?;
                (Domain::UNIX, address, "localhost".to_owned())
            }
        };
        let mut socket = Socket::new(domain, Type::STREAM, None)?;
        socket.connect_timeout(&address, time_remaining(deadline)?)?;
        socket.set_write_timeout(Some(time_remaining(deadline)?))?;
        let token = self.token.as_ref();
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\n{}Content-Length: 0\r\n\
             Connection: close\r\n\r\n",
            authorization.unwrap_or_default()
        );
        socket.write_all(request.as_bytes())?;
        let mut response = Vec::new();
        let mut piece = vec![0; 16 << 10];
        loop {
            socket.set_read_timeout(Some(time_remaining(deadline)?))?;
            match socket.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => response.extend_from_slice(&piece[..count]),
                // By a signal: with a deadline, the kernel does not read on.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if response.len() > ANSWER_BYTES_MAX {
                return Err(io::Error::other("the answer does not end"));
            }
        }
        parse_reply(response)
    }
}

/// Every answer ends with its connection.
fn parse_reply(mut response: Vec<u8>) -> io::Result<AdminReply> {
    let not_http = || io::Error::other("this is not an HTTP server");
    let end = response.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let body = response.split_off(end.ok_or_else(not_http)? + 4);
    let head = String::from_utf8_lossy(&response);
    let (version, rest) = head.split_once(' ').ok_or_else(not_http)?;
    let status = rest.get(..3).and_then(|status| status.parse().ok());
    let status = status.filter(|_| version.starts_with("HTTP/1."));
    let status = status.ok_or_else(not_http)?;
    let declared = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    if declared.is_some_and(|length| length != body.len()) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(AdminReply { status, body })
}

/// The time until the deadline; an error once it has passed.
fn time_remaining(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        remaining => Ok(remaining),
    }
}

/// Percent-encodes every byte with a meaning in a query.
pub(super) fn percent_encode(url: &str) -> String {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b'/')
        .remove(b':');
    utf8_percent_encode(url, ENCODED).to_string()
}

/// What the server said, with the status behind its first line: more lines are an excerpt and help.
fn with_status(reason: &str, status: u16) -> String {
    match reason.split_once('\n') {
        Some((first, rest)) => {
            let (first, colon) = match first.strip_suffix(':') {
                Some(first) => (first, ":"),
                None => (first, ""),
            };
            format!("{first} (status {status}){colon}\n{rest}")
        }
        None => format!("{reason} (status {status})"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn client(address: AdminAddress) -> AdminClient {
        AdminClient {
            address,
            token: Some("a-token".to_owned()),
        }
    }

    fn reply(answer: &'static [u8], timeout: Duration) -> anyhow::Result<AdminReply> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..count]).into_owned();
            stream.write_all(answer).unwrap();
            if answer.is_empty() {
                // Sends nothing until the other side gives up.
                let _ = stream.read(&mut [0; 1024]);
            }
            request
        });
        let reply = client(address.into()).request("GET", "/healthz", timeout);
        let request = server.join().unwrap();
        assert!(
            request.starts_with("GET /healthz HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains("\r\nAuthorization: Bearer a-token\r\n"),
            "{request}"
        );
        reply
    }

    #[test]
    fn reads_status_and_body_and_nothing_that_is_not_http() {
        let timeout = Duration::from_secs(10);
        let good = reply(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n", timeout).unwrap();
        assert_eq!((good.status, &*good.body), (200, &b"ok\n"[..]));
        assert_eq!(
            reply(b"HTTP/1.1 503 No\r\n\r\n", timeout).unwrap().status,
            503
        );
        assert!(reply(b"SSH-2.0-OpenSSH_9\r\n", timeout).is_err());
        assert!(reply(b"HTTP", timeout).is_err());
        let cut = reply(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok\n", timeout);
        assert!(cut.is_err(), "the body was cut");
    }

    #[test]
    fn gives_up_at_the_deadline_and_says_what_to_do() {
        assert!(reply(b"", Duration::from_millis(50)).is_err());
        let unused = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let nobody = client(unused.into()).request("GET", "/", Duration::from_secs(2));
        let error = format!("{:#}", nobody.err().unwrap());
        assert!(error.contains("--admin"), "{error}");
        let nobody = client(AdminAddress::Unix("/nowhere/at/all.sock".into()));
        assert!(nobody.request("GET", "/", Duration::from_secs(2)).is_err());
    }

    #[test]
    fn url_is_percent_encoded_for_the_query() {
        assert_eq!(
            percent_encode("http://a/b?c=1&d=%2f"),
            "http://a/b%3Fc%3D1%26d%3D%252f"
        );
    }

    #[test]
    fn status_stands_behind_the_first_line() {
        assert_eq!(
            with_status("no such host", 404),
            "no such host (status 404)"
        );
        assert_eq!(
            with_status("unknown key\n  help: a", 409),
            "unknown key (status 409)\n  help: a"
        );
        assert_eq!(
            with_status("it said:\none", 409),
            "it said (status 409):\none"
        );
    }
}
