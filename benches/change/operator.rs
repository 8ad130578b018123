//! The operator: writes the file, reloads it, upgrades the program, and looks whether it was done.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
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
/// The names of the file and of the program in the folder.
const FILE: &str = "seawall.toml";
const PROGRAM: &str = "seawall";

const LOOK: Duration = Duration::from_millis(20);

/// The operator of one program. Dropping it ends the program.
pub struct Operator {
    folder: PathBuf,
    addresses: Addresses,
    child: Child,
    round: u64,
    pub reloads: u64,
    pub upgrades: u64,
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The processes of upgrades have the same file in their arguments.
        let file = self.folder.join(FILE);
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let mut words = arguments.split(|byte| *byte == 0);
            if words.any(|word| word == file.as_os_str().as_bytes()) {
                let pid = process.file_name();
                let _ = Command::new("kill").arg("-KILL").arg(pid).status();
            }
        }
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
        let (file, link) = (folder.join(FILE), folder.join(PROGRAM));
        symlink(env!("CARGO_BIN_EXE_seawall"), &link)?;
        fs::write(&file, configuration::text(0, &addresses, folder))?;
        let log = fs::File::create(folder.join("seawall.log"))?;
        let child = Command::new(&link)
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
            upgrades: 0,
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
        let report: Value = serde_json::from_str(&answer)?;
        ensure!(report["needs_restart"] == 0, "not applied: {answer}");
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

    /// Upgrades to the same program. An error if the new process does not answer.
    pub async fn upgrade(&mut self) -> anyhow::Result<()> {
        let before = self.process().await?;
        let (status, answer) = self.request("POST", "/upgrade").await?;
        ensure!(status == 200, "an upgrade failed: {status} {answer}");
        let new: Value = serde_json::from_str(&answer)?;
        let now = self.process().await?;
        ensure!(
            now != before && new["pid"] == now,
            "process {before} before an upgrade, {now} after it, said was {answer}"
        );
        self.upgrades += 1;
        Ok(())
    }

    /// Upgrades to a program that ends at its start. An error if that changes anything.
    pub async fn upgrade_to_broken_program(&self) -> anyhow::Result<()> {
        let link = self.folder.join(PROGRAM);
        fs::remove_file(&link)?;
        symlink("/bin/false", &link)?;
        let before = self.process().await?;
        let (status, answer) = self.request("POST", "/upgrade").await?;
        ensure!(status == 409, "a broken program serves: {status} {answer}");
        ensure!(before == self.process().await?, "another process serves");
        fs::remove_file(&link)?;
        symlink(env!("CARGO_BIN_EXE_seawall"), &link).context("cannot put the program back")
    }

    fn write_next_file(&mut self) -> anyhow::Result<()> {
        self.round += 1;
        let text = configuration::text(self.round, &self.addresses, &self.folder);
        let new = self.folder.join("seawall.toml.new");
        fs::write(&new, text)?;
        fs::rename(&new, self.folder.join(FILE)).context("cannot replace the file")
    }

    async fn status(&self) -> anyhow::Result<Value> {
        let (status, answer) = self.request("GET", "/status").await?;
        ensure!(status == 200, "no status: {status} {answer}");
        Ok(serde_json::from_str(&answer)?)
    }

    /// Which of its files the program runs by.
    async fn generation(&self) -> anyhow::Result<u64> {
        let answer = self.status().await?;
        let generation = answer["config"]["generation"].as_u64();
        generation.context("the status has no generation")
    }

    /// The number of the process that answers.
    async fn process(&self) -> anyhow::Result<u64> {
        let process = self.status().await?["process"]["pid"].as_u64();
        process.context("the status has no process")
    }

    /// A request to the admin server.
    /// How often an object had to leave this process for another one.
    pub async fn evictions(&self) -> anyhow::Result<f64> {
        let (status, metrics) = self.request("GET", "/metrics").await?;
        ensure!(status == 200, "the metrics say {status}");
        let rows = metrics
            .lines()
            .filter(|row| row.starts_with("seawall_store_evictions_total{"));
        let counts = rows.filter_map(|row| row.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(counts.sum())
    }

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
