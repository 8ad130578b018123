//! How does a live audience fare once memory is full? The stream's own segments fill it: it holds a third of
//! what the run makes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use seawall::demo::{Broadcast, Clock, Form, Origin, Plan, Rendition};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::figures::{percent, ratio};
use super::{Asked, Notes, ON_AIR, Programme, READY, WARM_UP_SEGMENTS, audience};
use crate::Stage;
use crate::arguments::LOW_LATENCY_SEGMENT;
use crate::server::{self, Server};
use crate::table::Table;

/// In which forms.
const FORMS: [Form; 3] = [Form::Cmaf, Form::Timeline, Form::LowLatency];
/// A run is at least so long: a third of it has to hold what players of a live edge ask for.
const SEGMENTS_MIN: u32 = 24;
/// How often the program is asked whether its memory is full.
const LOOK: Duration = Duration::from_millis(200);

/// The counts at one moment.
#[derive(Clone, Copy, Default)]
struct Counts {
    /// Answers to viewers, and those of them from memory.
    answers: u64,
    hits: u64,
    asked: Asked,
    /// Segments that each rendition has.
    segments: u64,
    evictions: u64,
}

/// Shows each form through the shield alone, and tells of the time before memory was full and after.
pub async fn watched_with_full_memory(
    stage: &Stage,
    programme: Programme,
) -> anyhow::Result<String> {
    let mut table = Table::new(&[
        "full memory",
        "",
        "answers",
        "hits",
        "÷ floor",
        "segments made",
        "evicted",
    ]);
    for form in FORMS {
        let programme = Programme { form, ..programme };
        let [before, at, after] = evening(stage, programme).await?;
        for (word, from, until) in [("before", before, at), ("full", at, after)] {
            table.row(row(form, word, from, until));
        }
        println!("{} has been watched with memory full", form.name());
    }
    let told = "The same players, of one server whose memory holds a third of what is made meanwhile. The floor:\n\
                each version of each manifest and each segment once; of LL-HLS each state and each part.";
    Ok(format!("\n{told}\n\n{}", table.text()))
}

fn row(form: Form, word: &str, from: Counts, until: Counts) -> Vec<String> {
    let answers = until.answers - from.answers;
    let asked = until.asked.since(from.asked);
    let made = until.segments - from.segments;
    vec![
        form.name().to_owned(),
        word.to_owned(),
        answers.to_string(),
        percent((until.hits - from.hits) as usize, answers as usize),
        ratio(
            asked.manifests + asked.segments + asked.parts,
            floor(form, made),
        ),
        made.to_string(),
        (until.evictions - from.evictions).to_string(),
    ]
}

/// Requests that an ideal cache makes while so many segments of each rendition are made.
fn floor(form: Form, made: u64) -> u64 {
    let renditions = Rendition::ALL.len() as u64;
    match form {
        Form::LowLatency => 2 * renditions * made * parts_per_segment(),
        // One MPD is of all renditions.
        _ if form.is_dash() => (1 + renditions) * made,
        _ => 2 * renditions * made,
    }
}

fn parts_per_segment() -> u64 {
    Broadcast::new(plan(LOW_LATENCY_SEGMENT)).parts_per_segment()
}

fn plan(segment: Duration) -> Plan {
    let clock = Clock::real();
    Plan::from(clock.now().saturating_sub(ON_AIR))
        .segment_seconds(segment.as_secs())
        .part_thirds(1)
}

/// Counts when everybody watches, when memory is full, and at the end.
async fn evening(stage: &Stage, programme: Programme) -> anyhow::Result<[Counts; 3]> {
    let segment = match programme.form {
        Form::LowLatency => LOW_LATENCY_SEGMENT,
        _ => programme.segment,
    };
    let lasts = programme.lasts.max(segment * SEGMENTS_MIN);
    let programme = Programme {
        segment,
        lasts,
        ..programme
    };
    let folder = tempfile::tempdir_in(stage.folder.path())?;
    let clock = Clock::real();
    let origin = Origin::start(plan(segment), clock.clone()).context("no origin")?;
    origin
        .control()
        .set(|faults| faults.slow = programme.thinks);
    let setting = stage.setting(folder.path(), origin.address(), READY);
    let [admin] = server::free_ports()?;
    let memory = bytes_made(origin.broadcast(), programme) / 3;
    let more = format!(
        "[admin]\nlisten = \"{admin}\"\n[cache]\nmemory = {memory}\nobject_max = {}\n",
        memory / 4
    );
    let server = Server::seawall(&setting, &stage.program, &more).await?;
    let players = audience(server.plain, programme, &clock, &Notes::default());
    let broadcast = origin.broadcast();
    let first = broadcast.segments(clock.now()) + u64::from(WARM_UP_SEGMENTS);
    let from = broadcast.segment_due(first) + segment / 2;
    clock.until(from).await;
    let before = counts(admin, &origin, &clock).await?;
    let until = from + programme.lasts;
    let mut now = before;
    let mut at_full = None;
    while clock.now() < until {
        clock.until(clock.now() + LOOK).await;
        now = counts(admin, &origin, &clock).await?;
        if now.evictions > 0 && at_full.is_none() {
            at_full = Some(now);
        }
    }
    drop(players);
    let Some(at_full) = at_full else {
        bail!("memory of {memory} bytes was never full");
    };
    Ok([before, at_full, now])
}

/// Bytes of all renditions' segments, and of the parts that they are made of too.
fn bytes_made(broadcast: &Broadcast, programme: Programme) -> u64 {
    let segments = programme.lasts.as_secs() / programme.segment.as_secs();
    let of_all = Rendition::ALL.map(|rendition| broadcast.segment(rendition, 10).len() as u64);
    of_all.into_iter().sum::<u64>() * segments
}

async fn counts(admin: SocketAddr, origin: &Origin, clock: &Clock) -> anyhow::Result<Counts> {
    let mut wire = TcpStream::connect(admin).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    wire.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    wire.read_to_string(&mut page).await?;
    let sum = |name: &str, label: &str| -> u64 {
        let lines = page
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(label));
        let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        values.sum()
    };
    Ok(Counts {
        answers: sum("seawall_requests_total{", ""),
        hits: sum("seawall_requests_total{", "outcome=\"hit\""),
        asked: Asked::of(origin),
        segments: origin.broadcast().segments(clock.now()),
        evictions: sum("seawall_store_evictions_total", ""),
    })
}
