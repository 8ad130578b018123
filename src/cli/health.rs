//! `seawall health`: one health check of a running server; the exit code is the result.
//!
//! Plain sockets, so that a container needs no other tool and the check starts no runtime.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use crate::config;

/// For everything: connect, request and response.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// `HTTP/1.1 200`: the part of the response that is read.
const STATUS_BYTES: usize = 12;

/// Ask a running server whether it is healthy.
#[derive(Debug, Args)]
pub(super) struct Health {
    /// Address of the server's admin port [default: `SEAWALL_ADMIN`, else 127.0.0.1:9090]
    #[arg(long, value_name = "ADDRESS", value_parser = config::parse_socket_address)]
    admin: Option<SocketAddr>,
}

impl Health {
    /// Fails unless the server answers 200.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let admin = match self.admin {
            Some(admin) => admin,
            None => match super::admin_from_environment()? {
                Some(admin) => admin,
                None => config::parse_socket_address(super::ADMIN)?,
            },
        };
        let status = fetch_status(admin, Instant::now() + ANSWER_MAX).with_context(|| {
            format!("no answer from {admin} (is it the server's admin address?)")
        })?;
        anyhow::ensure!(status == 200, "{admin} is not well: status {status}");
        Ok(())
    }
}

fn fetch_status(admin: SocketAddr, deadline: Instant) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&admin, time_remaining(deadline)?)?;
    stream.set_write_timeout(Some(time_remaining(deadline)?))?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::with_capacity(STATUS_BYTES);
    while head.len() < STATUS_BYTES {
        stream.set_read_timeout(Some(time_remaining(deadline)?))?;
        let mut piece = [0; STATUS_BYTES];
        match stream.read(&mut piece[..STATUS_BYTES - head.len()])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&piece[..count]),
        }
    }
    parse_status(&head).ok_or_else(|| io::Error::other("this is not an HTTP server"))
}

fn parse_status(head: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(head).ok()?;
    let (version, status) = text.split_once(' ')?;
    version
        .starts_with("HTTP/1.")
        .then(|| status.parse().ok())?
}

/// The time until the deadline; an error once it has passed.
pub(super) fn time_remaining(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        remaining => Ok(remaining),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn status_of_answer(answer: &'static [u8], timeout: Duration) -> io::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            assert!(request[..count].starts_with(b"GET /healthz HTTP/1.1\r\n"));
            stream.write_all(answer).unwrap();
            if answer.is_empty() {
                // Sends nothing until the other side gives up.
                let _ = stream.read(&mut request);
            }
        });
        let status = fetch_status(admin, Instant::now() + timeout);
        server.join().unwrap();
        status
    }

    #[test]
    fn health_check_reads_the_status_code() {
        let timeout = Duration::from_secs(10);
        assert_eq!(
            status_of_answer(b"HTTP/1.1 200 OK\r\n\r\n", timeout).unwrap(),
            200
        );
        assert_eq!(
            status_of_answer(b"HTTP/1.1 503 No\r\n\r\n", timeout).unwrap(),
            503
        );
        assert!(status_of_answer(b"SSH-2.0-OpenSSH_9\r\n", timeout).is_err());
        assert!(status_of_answer(b"HTTP", timeout).is_err());
    }

    #[test]
    fn health_check_fails_without_a_response() {
        assert!(status_of_answer(b"", Duration::from_millis(50)).is_err());
        let unused = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(
            Health {
                admin: Some(unused)
            }
            .run()
            .is_err()
        );
    }
}
