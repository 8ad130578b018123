//! The baseline: players directly at the simulated origin, in a process of its own, on the server's
//! core; the shield in that process is idle.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, ensure};
use seawall_manifest::{Kind, read_manifest};
use seawall_simulator::{Broadcast, BroadcastPlan, DemoRendition, Packaging, Resource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Programme, READY};
use crate::Stage;
use crate::server::{Server, free_ports};

pub struct Alone {
    pub server: Server,
    /// The stream that it serves.
    pub broadcast: Broadcast,
}

pub async fn start(stage: &Stage, folder: &Path, programme: Programme) -> anyhow::Result<Alone> {
    let [origin, listen, admin] = free_ports()?;
    let mut command = stage.cores.server_command(&stage.program);
    command.arg("demo");
    for (name, address) in [
        ("--origin", origin),
        ("--listen", listen),
        ("--admin", admin),
    ] {
        command.arg(name).arg(address.to_string());
    }
    let segment = programme.segment.as_secs();
    command.arg("--segment").arg(segment.to_string());
    let setting = stage.setting(folder, origin, READY);
    let server = Server::start("origin", command, &setting, origin, origin).await?;
    let slow = format!("/control?slow={}", programme.thinks.as_secs_f64());
    request_text(origin, "POST", &slow).await?;

    // The start of the stream follows from the end of its last segment.
    let playlist = Resource::Playlist(Packaging::Cmaf, DemoRendition::High).path();
    let answer = request_text(origin, "GET", &playlist).await?;
    let (_, text) = answer.split_once("\r\n\r\n").context("no answer")?;
    let playlist = read_manifest(Kind::Hls, text.as_bytes())?.info;
    let edge = playlist.playlist_edge();
    let edge = edge.context("the origin lists nothing")?;
    let ended = edge.end_time.context("the origin tells no time")?;
    let ended = ended.duration_since(std::time::UNIX_EPOCH)?;
    let lasted = programme.segment * u32::try_from(edge.last_sequence + 1)?;
    let plan = BroadcastPlan::from(ended.saturating_sub(lasted)).segment_seconds(segment);
    let broadcast = Broadcast::new(plan.part_thirds(1));
    Ok(Alone { server, broadcast })
}

async fn request_text(origin: SocketAddr, method: &str, target: &str) -> anyhow::Result<String> {
    let asked = async {
        let mut wire = TcpStream::connect(origin).await?;
        let head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        wire.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        wire.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = asked.await.context("the origin does not answer")?;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "{method} {target}: {answer}"
    );
    Ok(answer)
}
