//! The program under test: its configuration, its process, and its resource use.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use seawall::telemetry::Outcome;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::download;
use crate::library::Library;
use crate::streams::Streams;

/// The time within which the program must listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Memory beyond `memory` and `fill.memory`: the program itself, connections, indexes.
const OVERHEAD_MIB: u64 = 64;

/// Two connections for each player, one for any other client, the same towards origins, and a
/// reserve.
const DESCRIPTORS_MAX: usize = 3000;

/// The limits that the program must respect.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub memory_mib: u64,
    pub fill_mib: u64,
}

/// The running program. Dropping it ends it.
pub struct Program {
    child: Child,
    port: u16,
    pub admin: SocketAddr,
    resident_mib: Vec<u64>,
    descriptors: Vec<usize>,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Starts it in front of these origins, and waits until it listens.
    pub async fn start(
        folder: &Path,
        streams: &Streams,
        library: &Library,
        bounds: Bounds,
    ) -> anyhow::Result<Program> {
        let [port, admin_port] = free_ports()?;
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin_port));
        let file = folder.join("seawall.toml");
        fs::write(&file, configuration(streams, library, bounds, port, admin))?;
        let child = Command::new(env!("CARGO_BIN_EXE_seawall"))
            .args(["serve", "--log", "text", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the program")?;
        let mut program = Program {
            child,
            port,
            admin,
            resident_mib: Vec::new(),
            descriptors: Vec::new(),
        };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(admin).await.is_err() {
            program.record_usage()?;
            ensure!(Instant::now() < deadline, "the program does not listen");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(program)
    }

    /// The viewers' address of a stream; the library's is the one after the last stream's.
    pub fn viewer_address(&self, stream: usize) -> SocketAddr {
        (host(stream), self.port).into()
    }

    /// Reads its memory and descriptors; an error if it has ended.
    pub fn record_usage(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            anyhow::bail!("the program ended: {status}");
        }
        let process = Path::new("/proc").join(self.child.id().to_string());
        let status = fs::read_to_string(process.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| {
            line.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .ok()
        });
        self.resident_mib.push(kib.context("no VmRSS")? >> 10);
        self.descriptors
            .push(fs::read_dir(process.join("fd"))?.count());
        Ok(())
    }

    /// Its own metrics at the end.
    pub async fn summary(&self) -> anyhow::Result<String> {
        let page = download::get_page(self.admin, "/metrics").await?;
        let sum = |name: &str, label: &str| -> f64 {
            let lines = page
                .lines()
                .filter(|line| line.starts_with(name) && line.contains(label));
            let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            values.sum()
        };
        let all = sum("seawall_requests_total{", "");
        let by_outcome = |outcome: Outcome| {
            let label = format!("outcome=\"{}\"", outcome.as_str());
            sum("seawall_requests_total{", &label)
        };
        let counted = |wanted: fn(bool) -> bool| -> f64 {
            let outcomes = Outcome::ALL.into_iter();
            let counted = outcomes.filter(|outcome| outcome.source().is_hit().is_some_and(wanted));
            counted.map(by_outcome).sum()
        };
        let hits = counted(|is_hit| is_hit);
        let most = |of: &[u64]| of.iter().max().copied().unwrap_or_default();
        Ok(format!(
            "{all:.0} requests, {:.1} % hits; {:.0} evictions; {:.0} MiB stored; at most {} MiB resident and {} descriptors",
            100.0 * hits / counted(|_| true).max(1.0),
            sum("seawall_store_evictions_total", ""),
            sum("seawall_store_bytes ", "") / f64::from(1 << 20),
            most(&self.resident_mib),
            self.descriptors.iter().max().copied().unwrap_or_default(),
        ))
    }

    /// All exceeded limits.
    pub fn faults(&self, bounds: Bounds) -> Vec<String> {
        let mut faults = Vec::new();
        let most = self.resident_mib.iter().max().copied().unwrap_or_default();
        let allowed = bounds.memory_mib + bounds.fill_mib + OVERHEAD_MIB;
        if most > allowed {
            faults.push(format!(
                "{most} MiB were resident, and {allowed} MiB are allowed"
            ));
        }
        let open = self.descriptors.iter().max().copied().unwrap_or_default();
        if open > DESCRIPTORS_MAX {
            faults.push(format!("{open} descriptors were open"));
        }
        // The first quarter is partly calm; a leak keeps growing after the second.
        let quarter = self.resident_mib.len() / 4;
        let mean = |of: &[u64]| of.iter().sum::<u64>() as f64 / of.len().max(1) as f64;
        if quarter > 60 {
            let (second, last) = (
                mean(&self.resident_mib[quarter..2 * quarter]),
                mean(&self.resident_mib[3 * quarter..]),
            );
            if last > second * 1.15 {
                faults.push(format!("memory grows: {second:.0} MiB, then {last:.0} MiB"));
            }
        }
        faults
    }
}

/// Each stream has its own address, and so its own host: players name the address that they connect
/// to.
pub fn host(stream: usize) -> Ipv4Addr {
    let last = u8::try_from(stream + 2).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 0, 0, last)
}

fn configuration(
    streams: &Streams,
    library: &Library,
    bounds: Bounds,
    port: u16,
    admin: SocketAddr,
) -> String {
    let Bounds {
        memory_mib,
        fill_mib,
    } = bounds;
    let mut text = format!(
        "[admin]\nlisten = \"{admin}\"\n\
         [limits]\nconnections_per_client_max = 10000\n\
         [cache]\nmemory = \"{memory_mib}MiB\"\nobject_max = \"16MiB\"\n\
         [fill]\nmemory = \"{fill_mib}MiB\"\n"
    );
    let library_origin = format!("\"http://{}\"", library.address);
    let stream_origins = streams
        .pairs()
        .map(|[first, second]| format!("\"{first}\", {{ url = \"{second}\", priority = 1 }}"));
    for (number, endpoints) in stream_origins.chain([library_origin]).enumerate() {
        let host = host(number);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "[[listener]]\nlisten = \"{host}:{port}\"\n\
             [[origin]]\nname = \"o{number}\"\nendpoints = [{endpoints}]\n\
             [[route]]\nname = \"r{number}\"\nhosts = [\"{host}\"]\norigin = \"o{number}\"\n"
        );
    }
    text
}

fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let sockets = [(); N].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut ports = [0; N];
    for (port, socket) in ports.iter_mut().zip(sockets) {
        *port = socket?.local_addr()?.port();
    }
    Ok(ports)
}
