//! The measured servers: the shield, the bound and, where installed, nginx as the reference and,
//! for live streams, Varnish. Each has one thread and its own memory or disk. Shield and nginx have
//! a plain and a TLS listener, the others a plain one.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use crate::bound;
use crate::machine::{self, Cores};
use crate::process::Program;
use crate::viewer;

/// The time within which a server must be ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server.
pub struct Server {
    /// The name in tables.
    pub name: &'static str,
    /// HTTP/1.1 without TLS.
    pub plain: SocketAddr,
    /// HTTP/1.1 and HTTP/2 over TLS.
    pub tls: SocketAddr,
    /// Its process.
    pub program: Program,
}

/// Certificate and key, as files.
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

impl Identity {
    /// Creates a self-signed one (ECDSA P-256), in `folder`.
    pub fn new(folder: &Path) -> anyhow::Result<Identity> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let identity = Identity {
            certificate: folder.join("bench.crt"),
            key: folder.join("bench.key"),
        };
        fs::write(&identity.certificate, made.cert.pem())?;
        fs::write(&identity.key, made.signing_key.serialize_pem())?;
        Ok(identity)
    }
}

/// The settings of every server.
pub struct Setting<'a> {
    /// The directory for files.
    pub folder: &'a Path,
    /// The origin.
    pub origin: SocketAddr,
    /// The path that readiness checks request.
    pub ready: &'a str,
    /// For the TLS listener.
    pub identity: &'a Identity,
    /// The cores.
    pub cores: &'a Cores,
}

impl Server {
    /// Starts the shield; `more` is appended to its configuration.
    pub async fn seawall(
        setting: &Setting<'_>,
        program: &Path,
        more: &str,
    ) -> anyhow::Result<Server> {
        let [plain, tls] = free_ports()?;
        let Setting {
            origin, identity, ..
        } = setting;
        let (certificate, key) = (identity.certificate.display(), identity.key.display());
        let text = format!(
            r#"
            [server]
            threads = 1

            [[listener]]
            listen = "{plain}"

            [[listener]]
            listen = "{tls}"
            tls.certificates = [{{ certificate = "{certificate}", key = "{key}" }}]

            [[origin]]
            name = "bench"
            endpoints = ["http://{origin}"]
            {more}"#
        );
        let file = setting.folder.join("seawall.toml");
        fs::write(&file, text)?;
        let mut command = setting.cores.server_command(program);
        command.arg("serve").arg("--config").arg(file);
        Server::start("seawall", command, setting, plain, tls).await
    }

    /// Starts nginx; `None` if it is not installed.
    pub async fn nginx(setting: &Setting<'_>) -> anyhow::Result<Option<Server>> {
        let Some(program) = machine::program("nginx") else {
            return Ok(None);
        };
        let [plain, tls] = free_ports()?;
        let file = setting.folder.join("nginx.conf");
        fs::write(&file, nginx_config(setting, plain, tls))?;
        let mut command = setting.cores.server_command(program);
        command.arg("-p").arg(setting.folder).arg("-c").arg(file);
        let server = Server::start("nginx", command, setting, plain, tls).await?;
        Ok(Some(server))
    }

    /// Starts Varnish, with its default VCL; `None` if it is not installed. It has no TLS listener.
    pub async fn varnish(setting: &Setting<'_>) -> anyhow::Result<Option<Server>> {
        let Some(program) = machine::program("varnishd") else {
            return Ok(None);
        };
        let [plain] = free_ports()?;
        let mut command = setting.cores.server_command(program);
        command
            .args(["-F", "-T", "none", "-s", "malloc,1G"])
            .args(["-p", "thread_pools=1"])
            .arg("-n")
            .arg(setting.folder.join("varnish"))
            .args(["-a", &plain.to_string(), "-b", &setting.origin.to_string()]);
        let server = Server::start("varnish", command, setting, plain, plain).await?;
        Ok(Some(server))
    }

    /// Starts the bound: this program, with another argument.
    pub async fn bound(setting: &Setting<'_>) -> anyhow::Result<Server> {
        let [plain] = free_ports()?;
        let own = std::env::current_exe().context("cannot find this program")?;
        let mut command = setting.cores.server_command(own);
        command.arg(bound::ARGUMENT).arg(plain.to_string());
        Server::start("bound", command, setting, plain, plain).await
    }

    /// Starts any server.
    pub async fn start(
        name: &'static str,
        command: Command,
        setting: &Setting<'_>,
        plain: SocketAddr,
        tls: SocketAddr,
    ) -> anyhow::Result<Server> {
        let program = Program::start(name, command, setting.folder)?;
        let mut server = Server {
            name,
            plain,
            tls,
            program,
        };
        server.ready(setting.ready).await?;
        Ok(server)
    }

    /// Waits until it responds.
    async fn ready(&mut self, path: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !viewer::visit(self.plain, path).await.whole {
            self.program.check_running()?;
            if Instant::now() > deadline {
                let said = self.program.output_tail();
                bail!("{} does not answer; it said:\n{said}", self.name);
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// Free addresses. All are reserved at once, so that they differ.
pub fn free_ports<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let listeners: Vec<_> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .context("no free port")?;
    let addresses: Vec<_> = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?;
    addresses.try_into().ok().context("no free port")
}

/// One worker, and the settings that nginx's manual recommends for a cache of media: persistent
/// connections on both sides, sendfile, an open-file cache, one fetch per object, stale responses
/// during updates.
fn nginx_config(setting: &Setting<'_>, plain: SocketAddr, tls: SocketAddr) -> String {
    let Setting {
        folder,
        origin,
        identity,
        ..
    } = setting;
    let folder = folder.display();
    let (certificate, key) = (identity.certificate.display(), identity.key.display());
    format!(
        r#"
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid "{folder}/nginx.pid";
error_log "{folder}/nginx.err";

events {{
    worker_connections 32768;
    multi_accept on;
}}

http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    keepalive_timeout 300;
    open_file_cache max=10000;
    client_body_temp_path "{folder}/body";
    proxy_temp_path "{folder}/temp";
    proxy_cache_path "{folder}/cache" levels=1:2 keys_zone=c:64m max_size=4g inactive=1h
                     use_temp_path=off;

    upstream origin {{
        server {origin};
        keepalive 64;
    }}

    server {{
        listen {plain} backlog=8192;
        listen {tls} ssl http2 backlog=8192;
        ssl_certificate "{certificate}";
        ssl_certificate_key "{key}";

        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache c;
            # The same object at both doors.
            proxy_cache_key $request_uri;
            proxy_cache_lock on;
            proxy_cache_use_stale updating error timeout;
            proxy_cache_background_update on;
            add_header X-Cache $upstream_cache_status;
        }}
    }}
}}
"#
    )
}
