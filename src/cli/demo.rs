//! `seawall demo`: a generated live stream with the shield in front of it, on this machine.
//!
//! The shield is the one that `serve` runs, with a configuration written here. Only the origins are
//! simulated.

use std::fmt::Write;
use std::io::{IsTerminal, stderr};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::logging::{self, LogFormat};
use crate::config::{self, Config};
use crate::server::ServerStart;
use crate::telemetry::LogLevels;
use seawall_simulator::{
    BroadcastPlan, Clock, DemoRendition, Packaging, Player, SimulatedOrigin, USAGE,
};

/// Show Seawall on this machine.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Address for viewers
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        value_parser = config::parse_socket_address
    )]
    listen: SocketAddr,

    /// Address of the admin server: metrics, health, purges
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9090",
        value_parser = config::parse_socket_address
    )]
    admin: SocketAddr,

    /// Address of the first origin; port 0 for any free port
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:0",
        value_parser = config::parse_socket_address
    )]
    origin: SocketAddr,

    /// Length of segments in seconds: 2, 4, 6, 8, 10 or 12
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = segment_seconds)]
    segment: u64,

    /// Length of parts (LL-HLS) and chunks (LL-DASH) in thirds of a second: 1, 2 or 3
    #[arg(
        long,
        value_name = "THIRDS",
        default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=3)
    )]
    part: u64,

    /// Speed of the stream as a multiple of real time, for tests of players
    #[arg(long, value_name = "TIMES", default_value = "1", value_parser = speed)]
    speed: f64,

    /// Number of simulated players, over all packagings in turn, so that the metrics show traffic
    #[arg(
        long,
        value_name = "PLAYERS",
        default_value_t = 0,
        value_parser = clap::value_parser!(u16).range(..=PLAYERS_MAX)
    )]
    viewers: u16,

    /// Format of the log [default: text on a terminal, else json]
    #[arg(long, value_enum, value_name = "FORMAT")]
    log: Option<LogFormat>,
}

/// The age of the stream when the demo starts: longer than any window.
const ON_AIR: Duration = Duration::from_mins(5);

/// A higher number would measure this machine and not the shield.
const PLAYERS_MAX: i64 = 2000;

/// A demo need not wait for viewers.
const DRAIN_MAX: Duration = Duration::from_millis(200);

fn segment_seconds(text: &str) -> Result<u64, &'static str> {
    let seconds = text.parse().ok();
    seconds
        .filter(|seconds: &u64| seconds.is_multiple_of(2) && (2..=12).contains(seconds))
        .ok_or("2, 4, 6, 8, 10 or 12")
}

fn speed(text: &str) -> Result<f64, &'static str> {
    let factor = text.parse().ok();
    factor
        .filter(|factor| (0.1..=100.0).contains(factor))
        .ok_or("a number from 0.1 to 100")
}

impl Demo {
    /// Runs until it is interrupted.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let log = logging::start(self.log, &LogLevels::default(), stderr().is_terminal())?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("seawall demo")
            .enable_all()
            .build()
            .context("cannot start the origins' thread")?;
        let guard = runtime.enter();
        let clock = Clock::times(self.speed);
        let plan = BroadcastPlan::from(clock.now().saturating_sub(ON_AIR))
            .segment_seconds(self.segment)
            .part_thirds(self.part);
        let first = SimulatedOrigin::start_at(self.origin, plan, clock)
            .with_context(|| format!("cannot listen on {} for the first origin", self.origin))?;
        let second = first
            .twin(0)
            .context("cannot listen for the second origin")?;
        drop(guard);
        let config = self.config(&first, &second)?;
        crate::server::run_announced(config, ServerStart::default(), &log.log, |viewers| {
            let fallback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let viewers = viewers.first().copied().unwrap_or(fallback);
            print!("{}", self.instructions(viewers, &first, &second));
            for player in self.players(viewers, first.clock()) {
                runtime.spawn(player.play());
            }
        })?;
        runtime.shutdown_background();
        Ok(())
    }

    fn config(&self, first: &SimulatedOrigin, second: &SimulatedOrigin) -> anyhow::Result<Config> {
        let text = format!(
            "[[listener]]\nlisten = \"{}\"\n\
             [admin]\nlisten = \"{}\"\n\
             [[origin]]\nname = \"demo\"\n\
             endpoints = [\"{}\", {{ url = \"{}\", priority = 1 }}]\n\
             [[route]]\nname = \"demo\"\norigin = \"demo\"\ncors = \"any\"\n",
            self.listen,
            self.admin,
            first.url(),
            second.url(),
        );
        let config = Config::read(&text, Path::new("(demo)"))?;
        Ok(Config {
            drain_max: DRAIN_MAX,
            ..config
        })
    }

    /// Players of every packaging and rendition in turn.
    fn players(&self, server: SocketAddr, clock: &Clock) -> impl Iterator<Item = Player> {
        let renditions = |packaging: Packaging| {
            DemoRendition::ALL
                .into_iter()
                .filter(move |rendition| packaging.has_rendition(*rendition))
        };
        let packagings = Packaging::ALL.into_iter();
        let combinations = packagings.flat_map(move |packaging| {
            renditions(packaging).map(move |rendition| (packaging, rendition))
        });
        let clock = clock.clone();
        let assigned = combinations.cycle().take(self.viewers.into());
        assigned.map(move |(packaging, rendition)| Player {
            server,
            packaging,
            rendition,
            clock: clock.clone(),
            on_fetch: Arc::new(|_| {}),
        })
    }

    /// URLs to play, and commands to try.
    fn instructions(
        &self,
        viewers: SocketAddr,
        first: &SimulatedOrigin,
        second: &SimulatedOrigin,
    ) -> String {
        let shield = format!("http://{viewers}");
        let mut text = String::from(
            "\nA live stream is running (a clock of 24 seconds that repeats), with Seawall in \
             front of it.\n\
             Play one of these (VLC, mpv, ffplay, hls.js, dash.js):\n\n",
        );
        for (packaging, description) in [
            (Packaging::Cmaf, "HLS, CMAF"),
            (Packaging::Ts, "HLS, transport streams"),
            (Packaging::LowLatency, "LL-HLS"),
            (Packaging::LowLatencyRanges, "LL-HLS, byte ranges"),
            (Packaging::Timeline, "DASH, timeline"),
            (Packaging::Number, "DASH, numbers"),
            (Packaging::Chunked, "DASH, low latency"),
        ] {
            let _ = writeln!(text, "  {description:24}{shield}{}", packaging.entry());
        }
        let playlist = "/live/cmaf/360p/index.m3u8";
        let (rendition, other) = (first.url(), second.url());
        let admin = self.admin;
        let _ = write!(
            text,
            "\nRequest this twice: a miss, then a hit with its Age.\n\n  \
             curl -sI {shield}{playlist} | grep -iE '^(age|cache-status)'\n\n\
             What the shield has done, and the state of its origins:\n\n  \
             curl -s http://{admin}/metrics | grep seawall_requests_total\n  \
             curl -s http://{admin}/metrics | grep seawall_stream_\n  \
             curl -s http://{admin}/status\n\n\
             The requests to the first origin:\n\n  \
             curl -s {rendition}/control\n\n\
             Break the first origin, and see what viewers notice; then break the second, too:\n\n  \
             curl -X POST '{rendition}/control?refuse=100'\n  \
             curl -X POST '{other}/control?refuse=100'\n  \
             curl -X POST '{rendition}/control?heal'\n  \
             curl -X POST '{other}/control?heal'\n\n\
             All faults: {USAGE}\n\n\
             Ctrl-C ends it.\n\n"
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct TestCommand {
        #[command(flatten)]
        demo: Demo,
    }

    #[tokio::test]
    async fn demo_configures_the_shield_and_prints_every_stream_url() {
        let TestCommand { demo } = TestCommand::parse_from(["demo", "--listen", "127.0.0.1:8123"]);
        let clock = Clock::real();
        let first = SimulatedOrigin::start(BroadcastPlan::from(clock.now()), clock).unwrap();
        let second = first.twin(0).unwrap();
        let config = demo.config(&first, &second).unwrap();
        assert_eq!(config.origins[0].endpoints.len(), 2);
        assert_eq!(config.drain_max, DRAIN_MAX);
        let text = demo.instructions(demo.listen, &first, &second);
        for packaging in Packaging::ALL {
            let url = format!("http://127.0.0.1:8123{}\n", packaging.entry());
            assert!(text.contains(&url), "{text}");
        }
        assert!(text.contains(&format!("{}/control?heal", second.url())));
        assert_eq!(demo.players(demo.listen, first.clock()).count(), 0);
    }

    #[tokio::test]
    async fn demo_viewers_cover_every_packaging() {
        let TestCommand { demo } = TestCommand::parse_from(["demo", "--viewers", "40"]);
        let players: Vec<_> = demo.players(demo.listen, &Clock::real()).collect();
        assert_eq!(players.len(), 40);
        for packaging in Packaging::ALL {
            assert!(
                players.iter().any(|player| player.packaging == packaging),
                "{packaging:?}"
            );
        }
    }
}
