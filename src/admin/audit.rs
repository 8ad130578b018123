//! The audit log: one JSON line for every write of an operator, and for every write that was
//! refused. A write that could not be logged does not happen.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwapOption;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;

use crate::telemetry::{
    CollectedMetric, LabelValues, LogRateLimit, Metric, MetricKind, MetricLabel, Timestamp,
    explain_log_error,
};

/// The target of the program log, when there is no file of its own. No line of it is left out as a
/// repetition.
pub const AUDIT_TARGET: &str = "seawall::audit";

/// Lines that may wait for the file.
const QUEUE_MAX: usize = 64;

/// Places that refused writes leave to those that are carried out: who has no token must not keep
/// out who has one.
const QUEUE_RESERVED: usize = 32;

/// A longer query is cut in the line.
const PARAMETERS_BYTES_MAX: usize = 4096;

/// Where lines go.
pub struct AuditLog {
    /// `None`: to the program log.
    file: ArcSwapOption<AuditFile>,
    counts: Arc<AuditCounts>,
    /// Anyone may send writes that are refused, any number of them.
    refusals: Mutex<LogRateLimit<()>>,
}

/// A file to which a thread appends lines, until this and all writes that began with it are gone.
pub struct AuditFile {
    lines: mpsc::Sender<String>,
    /// The last line could not be written.
    is_failing: Arc<AtomicBool>,
}

/// Where the lines of writes that begin from now on go.
pub enum AuditDestination {
    /// To the program log.
    ProgramLog,
    /// To a file of their own.
    File(AuditFile),
}

#[derive(Default)]
struct AuditCounts {
    done: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
}

/// What the audit log has counted.
#[derive(Clone, Copy, Debug)]
pub struct AuditStats {
    done: u64,
    failed: u64,
    refused: u64,
    dropped: u64,
}

/// A write that somebody asked for.
#[derive(Clone, Debug)]
pub(super) struct WriteAttempt {
    pub(super) actor: String,
    pub(super) address: String,
    /// Method and path.
    pub(super) action: String,
    /// The query as it was sent.
    pub(super) parameters: String,
    pub(super) arrived: SystemTime,
    pub(super) begun: Instant,
}

/// Why a write does not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AuditError {
    #[error("the audit log is full: too many operators write")]
    Full,
    #[error("the audit log cannot be written: see the log of the program")]
    Failing,
}

/// A write that is being carried out. Its line is written when it ends, also if the client is gone
/// by then.
pub(super) struct PendingWrite<'a> {
    log: &'a AuditLog,
    attempt: WriteAttempt,
    place: Option<mpsc::OwnedPermit<String>>,
    status: Option<StatusCode>,
}

impl AuditLog {
    /// A log in the program log, or in a file, to which lines are appended.
    pub fn start(file: Option<PathBuf>) -> io::Result<AuditLog> {
        let log = AuditLog {
            file: ArcSwapOption::empty(),
            counts: Arc::default(),
            refusals: Mutex::default(),
        };
        log.redirect(log.open(file)?);
        Ok(log)
    }

    /// Opens a file for this log, if there is to be one.
    pub fn open(&self, file: Option<PathBuf>) -> io::Result<AuditDestination> {
        let Some(path) = file else {
            return Ok(AuditDestination::ProgramLog);
        };
        append(&path, "").map_err(|error| explain_log_error(&path, error))?;
        let (sender, lines) = mpsc::channel(QUEUE_MAX);
        let is_failing = Arc::new(AtomicBool::new(false));
        let (counts, failing) = (self.counts.clone(), is_failing.clone());
        thread::Builder::new()
            .name("seawall audit".to_owned())
            .spawn(move || write_lines(&path, lines, &counts, &failing))?;
        Ok(AuditDestination::File(AuditFile {
            lines: sender,
            is_failing,
        }))
    }

    /// Sends the lines of writes that begin from now on there.
    pub fn redirect(&self, destination: AuditDestination) {
        self.file.store(match destination {
            AuditDestination::ProgramLog => None,
            AuditDestination::File(file) => Some(Arc::new(file)),
        });
    }

    /// What it has counted.
    pub fn stats(&self) -> AuditStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        AuditStats {
            done: read(&self.counts.done),
            failed: read(&self.counts.failed),
            refused: read(&self.counts.refused),
            dropped: read(&self.counts.dropped),
        }
    }

    /// Reserves a place for the line of a write that is about to be carried out.
    pub(super) fn begin(&self, attempt: WriteAttempt) -> Result<PendingWrite<'_>, AuditError> {
        let place = match &*self.file.load() {
            None => None,
            Some(file) if file.is_failing.load(Ordering::Relaxed) => {
                // The line of the refusal finds out whether the file can be written again.
                self.refuse(&attempt, StatusCode::SERVICE_UNAVAILABLE);
                return Err(AuditError::Failing);
            }
            Some(file) => match file.lines.clone().try_reserve_owned() {
                Ok(place) => Some(place),
                Err(_) => return Err(AuditError::Full),
            },
        };
        Ok(PendingWrite {
            log: self,
            attempt,
            place,
            status: None,
        })
    }

    /// Logs a write that was refused.
    pub(super) fn refuse(&self, attempt: &WriteAttempt, status: StatusCode) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        let is_admitted = self.refusals.lock().admit((), attempt.begun);
        let has_place = |sender: &mpsc::Sender<_>| sender.capacity() > QUEUE_RESERVED;
        let line = attempt.line("refused", Some(status));
        let is_sent = is_admitted
            && match &*self.file.load() {
                None => {
                    log_line(&line);
                    true
                }
                Some(file) => has_place(&file.lines) && file.lines.try_send(line).is_ok(),
            };
        if !is_sent {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl PendingWrite<'_> {
    /// Logs how it ended.
    pub(super) fn finish(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for PendingWrite<'_> {
    fn drop(&mut self) {
        let counts = &self.log.counts;
        let (result, count) = match self.status {
            Some(status) if status.is_success() => ("done", &counts.done),
            Some(_) => ("failed", &counts.failed),
            // The client left: the write may have happened.
            None => ("abandoned", &counts.failed),
        };
        count.fetch_add(1, Ordering::Relaxed);
        let line = self.attempt.line(result, self.status);
        match self.place.take() {
            Some(place) => {
                place.send(line);
            }
            None => log_line(&line),
        }
    }
}

impl WriteAttempt {
    fn line(&self, result: &str, status: Option<StatusCode>) -> String {
        let parameters = &self.parameters;
        let cut = parameters.floor_char_boundary(PARAMETERS_BYTES_MAX);
        let took = self.begun.elapsed().as_secs_f64() * 1e3;
        json!({
            "ts": Timestamp(self.arrived).to_string(),
            "actor": self.actor,
            "address": self.address,
            "action": self.action,
            "parameters": &parameters[..cut],
            "result": result,
            "status": status.map(|status| status.as_u16()),
            "took_ms": (took * 1e3).round() / 1e3,
        })
        .to_string()
    }
}

fn log_line(line: &str) {
    tracing::info!(target: AUDIT_TARGET, "{line}");
}

/// Opens the file for each line: writes are rare, and the file may have been rotated.
fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).mode(0o640).open(path)?;
    file.write_all(line.as_bytes())
}

/// Writes until the log is dropped. Only the first of several failures is reported.
fn write_lines(
    path: &Path,
    mut lines: mpsc::Receiver<String>,
    counts: &AuditCounts,
    is_failing: &AtomicBool,
) {
    while let Some(line) = lines.blocking_recv() {
        let result = append(path, &format!("{line}\n"));
        let has_failed = is_failing.swap(result.is_err(), Ordering::Relaxed);
        if let Err(error) = result {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
            // The line itself must not be lost.
            log_line(&line);
            if !has_failed {
                tracing::error!(%error, "the audit log cannot be written: writes are refused");
            }
        }
    }
}

const WRITE_RESULT: MetricLabel = MetricLabel {
    name: "result",
    values: LabelValues::Fixed(|| vec!["done", "failed", "refused"]),
};

/// Writes of operators.
pub static AUDIT_METRICS: [CollectedMetric<AuditStats>; 2] = [
    Metric {
        name: "seawall_admin_writes_total",
        kind: MetricKind::Counter,
        unit: "requests",
        labels: &[WRITE_RESULT],
        help: "Requests of operators that change the server, by result. Increments when one ends, \
               or is refused for its token or its site.",
        remedy: "If refused rises, somebody tries: the audit log names the address. If failed \
                 rises, read there which requests fail.",
    }
    .collected(|stats, samples| {
        for (result, count) in [
            ("done", stats.done),
            ("failed", stats.failed),
            ("refused", stats.refused),
        ] {
            samples.add(&[result], count);
        }
    }),
    Metric {
        name: "seawall_audit_lines_dropped_total",
        kind: MetricKind::Counter,
        unit: "lines",
        labels: &[],
        help: "Lines that the audit log left out: refused writes beyond a burst of 50 and 2 per \
               second, and lines that its file did not take. Increments with each line.",
        remedy: "Check the space on the file's disk; while it fails, writes are refused.",
    }
    .collected(|stats, samples| samples.add(&[], stats.dropped)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(action: &str) -> WriteAttempt {
        WriteAttempt {
            actor: "token deploy".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            action: action.to_owned(),
            parameters: "url=http://a/".to_owned(),
            arrived: SystemTime::UNIX_EPOCH,
            begun: Instant::now(),
        }
    }

    /// A log whose file nobody writes: lines stay in the queue.
    fn stuck_log() -> (AuditLog, mpsc::Receiver<String>) {
        let (sender, lines) = mpsc::channel(QUEUE_MAX);
        let log = AuditLog {
            file: ArcSwapOption::from_pointee(AuditFile {
                lines: sender,
                is_failing: Arc::default(),
            }),
            counts: Arc::default(),
            refusals: Mutex::default(),
        };
        (log, lines)
    }

    #[test]
    fn refused_writes_leave_room_for_those_that_are_carried_out() {
        let (log, mut lines) = stuck_log();
        for _ in 0..1000 {
            log.refuse(&attempt("POST /purge"), StatusCode::UNAUTHORIZED);
        }
        let pending: Vec<_> = (0..QUEUE_RESERVED)
            .map(|_| log.begin(attempt("POST /drain")).unwrap())
            .collect();
        let full = log.begin(attempt("POST /drain"));
        assert_eq!(
            full.err(),
            Some(AuditError::Full),
            "an unlogged write does not happen"
        );
        for write in pending {
            write.finish(StatusCode::OK);
        }
        let stats = log.stats();
        let refused = QUEUE_MAX - QUEUE_RESERVED;
        assert_eq!((stats.refused, stats.done), (1000, QUEUE_RESERVED as u64));
        assert_eq!(stats.dropped, 1000 - refused as u64);
        let mut written = 0;
        while let Ok(line) = lines.try_recv() {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            let is_done = line["action"] == "POST /drain";
            assert_eq!(line["result"], if is_done { "done" } else { "refused" });
            written += 1;
        }
        assert_eq!(written, QUEUE_MAX);
    }

    #[test]
    fn a_write_whose_client_left_has_its_line() {
        let (log, mut lines) = stuck_log();
        drop(log.begin(attempt("POST /purge")).unwrap());
        let line: serde_json::Value = serde_json::from_str(&lines.try_recv().unwrap()).unwrap();
        assert_eq!(line["result"], "abandoned");
        assert_eq!(line["actor"], "token deploy");
        assert_eq!(line["parameters"], "url=http://a/");
        assert_eq!(line["ts"], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn writes_are_refused_while_the_file_fails() {
        let (log, mut lines) = stuck_log();
        let file = log.file.load_full().unwrap();
        file.is_failing.store(true, Ordering::Relaxed);
        let refused = log.begin(attempt("POST /purge"));
        assert_eq!(refused.err(), Some(AuditError::Failing));
        assert!(lines.try_recv().is_ok(), "this line tries the file again");
        assert!(AuditLog::start(Some("/nowhere/at/all/audit.log".into())).is_err());
    }
}
