//! The operator: writes the file, reloads it, and looks whether it was done.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::configuration::{self, Addresses};
use crate::origin::Origin;

/// The time within which the program must listen, and must answer.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(20);

/// The operator of one program. Dropping it ends the program.
pub struct Operator {
    folder: PathBuf,
    addresses: Addresses,
    child: Child,
    round: u64,
    pub reloads: u64,
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Operator {
    /// Starts the program in front of this origin, and waits until it is ready.
    pub async fn start_program(folder: &Path, origin: &Origin) -> anyhow::Result<Operator> {
        let [viewers, spare, admin] = free_addresses()?;
        let addresses = Addresses {
            viewers,
            spare,
            admin,
            origin: origin.address,
        };
        let file = folder.join("seawall.toml");
        fs::write(&file, configuration::text(0, &addresses, folder))?;
        let log = fs::File::create(folder.join("seawall.log"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_seawall"))
            .args(["serve", "--log", "text", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the program")?;
        let operator = Operator {
            folder: folder.to_owned(),
            addresses,
            child,
            round: 0,
            reloads: 0,
        };
        let deadline = Instant::now() + PATIENCE;
        while operator.request("GET", "/readyz").await.is_err() {
            ensure!(Instant::now() < deadline, "the program does not listen");
            sleep(LOOK).await;
        }
        Ok(operator)
    }

    pub fn viewer_address(&self) -> SocketAddr {
        self.addresses.viewers
    }

    /// The listener that comes and goes, if the last reload has opened it.
    pub fn new_listener(&self) -> Option<SocketAddr> {
        let [before, now] = [self.round - 1, self.round].map(configuration::has_spare_listener);
        (now && !before).then_some(self.addresses.spare)
    }

    /// Changes the file and reloads it. An error if the program does not say that it was applied,
    /// or has a listener that is not in the file.
    pub async fn reload(&mut self) -> anyhow::Result<()> {
        self.write_next_file()?;
        let before = self.generation().await?;
        let (status, answer) = self.request("POST", "/reload").await?;
        ensure!(status == 200, "a reload failed: {status} {answer}");
        let now = self.generation().await?;
        ensure!(
            now > before,
            "generation {before} before a reload, {now} after it"
        );
        let accepts = TcpStream::connect(self.addresses.spare).await.is_ok();
        ensure!(
            accepts == configuration::has_spare_listener(self.round),
            "round {}: the other listener accepts connections: {accepts}",
            self.round
        );
        self.reloads += 1;
        Ok(())
    }

    fn write_next_file(&mut self) -> anyhow::Result<()> {
        self.round += 1;
        let text = configuration::text(self.round, &self.addresses, &self.folder);
        let new = self.folder.join("seawall.toml.new");
        fs::write(&new, text)?;
        fs::rename(&new, self.folder.join("seawall.toml")).context("cannot replace the file")
    }

    /// Which of its files the program runs by.
    async fn generation(&self) -> anyhow::Result<u64> {
        let (status, answer) = self.request("GET", "/status").await?;
        ensure!(status == 200, "no status: {status} {answer}");
        let answer: Value = serde_json::from_str(&answer)?;
        let generation = answer["config"]["generation"].as_u64();
        generation.context("the status has no generation")
    }

    /// A request to the admin server.
    async fn request(&self, method: &str, path: &str) -> anyhow::Result<(u16, String)> {
        let admin = self.addresses.admin;
        let exchange = timeout(PATIENCE, async {
            let mut stream = TcpStream::connect(admin).await?;
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        });
        let answer = exchange
            .await
            .context("no answer in time")?
            .with_context(|| format!("{method} {path}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Ok((status.context("no status")?, body.to_owned()))
    }
}

fn free_addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let sockets = [(); N].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for (address, socket) in addresses.iter_mut().zip(sockets) {
        *address = socket?.local_addr()?;
    }
    Ok(addresses)
}
