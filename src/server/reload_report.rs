//! What a reload did, or why it did nothing: for the log, the admin server and the metrics.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::config::{Change, Problems, ReloadEffect};
use crate::telemetry::{CollectedMetric, LabelValues, Metric, MetricKind, MetricLabel};

/// A reload that was carried out.
#[derive(Clone, Debug)]
pub(super) struct ReloadReport {
    /// The number of the settings that it put in use.
    generation: u64,
    /// SHA-256 of the file's text.
    hash: Option<String>,
    loaded_at: SystemTime,
    changes: Vec<Change>,
    /// What is doubtful in the file. `None`: the configuration is of no file.
    warnings: Option<Problems>,
}

/// Why a reload changed nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct ReloadError {
    /// In words, with the place in the file.
    text: String,
    /// The problems of the file, if it has any.
    problems: Option<Value>,
}

/// What is known of the configuration in use and of the last reload.
#[derive(Clone, Debug)]
pub(super) struct ReloadStats {
    generation: u64,
    hash: Option<String>,
    loaded_at: SystemTime,
    applied: u64,
    failed: u64,
    last_difference: Option<Value>,
    /// What the file has otherwise than what runs, until a restart or a file without it.
    pending_restart: Vec<Value>,
    /// Of the configuration in use.
    warnings: Value,
    /// Until the next reload that succeeds.
    last_error: Option<Value>,
}

/// The generation with which a server starts.
const FIRST_GENERATION: u64 = 1;

impl ReloadReport {
    pub(super) fn of(changes: Vec<Change>) -> ReloadReport {
        ReloadReport {
            generation: 0,
            hash: None,
            loaded_at: SystemTime::UNIX_EPOCH,
            changes,
            warnings: None,
        }
    }

    /// Says of which file the configuration is.
    pub(super) fn of_file(self, hash: String, warnings: Problems) -> ReloadReport {
        ReloadReport {
            hash: Some(hash),
            warnings: Some(warnings),
            ..self
        }
    }

    pub(super) fn applied(self, generation: u64, loaded_at: SystemTime) -> ReloadReport {
        ReloadReport {
            generation,
            loaded_at,
            ..self
        }
    }

    /// The changes that only a restart applies, each with the reason.
    fn needing_restart(&self) -> impl Iterator<Item = (&Change, &'static str)> {
        self.changes.iter().filter_map(|change| {
            let ReloadEffect::Restart(why) = change.reload_effect() else {
                return None;
            };
            Some((change, why))
        })
    }

    pub(super) fn log(&self, cause: &str) {
        let (generation, restart) = (self.generation, self.needing_restart().count());
        let applied = self.changes.len() - restart;
        tracing::info!(
            cause,
            generation,
            "configuration reloaded: {applied} changes are in use, {restart} need a restart"
        );
        for change in &self.changes {
            let text = change.text_with_effect();
            if let ReloadEffect::Restart(_) = change.reload_effect() {
                tracing::warn!("not changed: {text}");
            } else {
                tracing::info!("changed: {text}");
            }
        }
        if let Some(warnings) = &self.warnings {
            warnings.log();
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "generation": self.generation,
            "hash": self.hash,
            "loaded_at": since_1970(self.loaded_at).as_secs_f64(),
            "changes": self.changes.iter().map(Change::to_json_with_effect).collect::<Vec<_>>(),
            "needs_restart": self.needing_restart().count(),
            "warnings": warnings_json(self.warnings.as_ref()),
        })
    }
}

impl ReloadError {
    pub(super) fn of(error: &anyhow::Error) -> ReloadError {
        ReloadError {
            text: format!("{error:#}"),
            problems: None,
        }
    }

    pub(super) fn in_file(problems: &Problems) -> ReloadError {
        ReloadError {
            text: problems.render(false),
            problems: Some(problems.to_json()),
        }
    }

    pub(super) fn log(&self, cause: &str) {
        tracing::error!(
            cause,
            "the configuration is not reloaded, nothing has changed: {}",
            self.text
        );
    }

    pub(super) fn to_json(&self) -> Value {
        let mut error = json!({ "error": self.text });
        if let Some(problems) = &self.problems {
            error["problems"] = problems.clone();
        }
        error
    }
}

impl ReloadStats {
    pub(super) fn begin(
        hash: Option<String>,
        loaded_at: SystemTime,
        warnings: Option<&Problems>,
    ) -> ReloadStats {
        ReloadStats {
            generation: FIRST_GENERATION,
            hash,
            loaded_at,
            applied: 0,
            failed: 0,
            last_difference: None,
            pending_restart: Vec::new(),
            warnings: warnings_json(warnings),
            last_error: None,
        }
    }

    /// Counts a reload. Returns what to say of it in a few words.
    pub(super) fn record(
        &mut self,
        result: &Result<Arc<ReloadReport>, Arc<ReloadError>>,
    ) -> String {
        match result {
            Ok(report) => {
                self.applied += 1;
                self.generation = report.generation;
                self.hash.clone_from(&report.hash);
                self.loaded_at = report.loaded_at;
                let mut json = report.to_json();
                // Compared with what runs: it is in every report until the restart.
                let pending = report.needing_restart();
                self.pending_restart = pending
                    .map(|(change, _)| change.to_json_with_effect())
                    .collect();
                self.last_difference = Some(json["changes"].take());
                self.warnings = json["warnings"].take();
                self.last_error = None;
                format!("configuration {} in use", self.generation)
            }
            Err(error) => {
                self.failed += 1;
                self.last_error = Some(error.to_json());
                "the last reload failed: the configuration of before is in use".to_owned()
            }
        }
    }

    pub(super) fn to_json(&self, file: Option<&Path>) -> Value {
        json!({
            "file": file.map(|file| file.display().to_string()),
            "hash": self.hash,
            "generation": self.generation,
            "loaded_at": since_1970(self.loaded_at).as_secs_f64(),
            "last_difference": self.last_difference,
            "pending_restart": self.pending_restart,
            "warnings": self.warnings,
            "last_error": self.last_error,
        })
    }
}

/// A list, also where there is no file.
fn warnings_json(warnings: Option<&Problems>) -> Value {
    warnings.map_or_else(|| json!([]), Problems::to_json)
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

const RESULT: MetricLabel = MetricLabel {
    name: "result",
    values: LabelValues::Fixed(|| vec!["applied", "failed"]),
};

/// The metrics of reloads.
pub(super) static RELOAD_METRICS: [CollectedMetric<ReloadStats>; 3] = [
    Metric {
        name: "seawall_config_generation",
        kind: MetricKind::Gauge,
        unit: "reloads since the start, plus 1",
        labels: &[],
        help: "The number of the configuration in use. 1 at the start; each reload that succeeds \
               adds 1.",
        remedy: "If servers that were reloaded together differ, see config.last_error in /status.",
    }
    .collected(|stats, samples| samples.add(&[], stats.generation)),
    Metric {
        name: "seawall_config_loaded_timestamp_seconds",
        kind: MetricKind::Gauge,
        unit: "seconds",
        labels: &[],
        help: "When the configuration in use was loaded, in seconds since 1970.",
        remedy: "If it is before the last reload, that failed: see config.last_error in /status.",
    }
    .collected(|stats, samples| samples.add(&[], since_1970(stats.loaded_at))),
    Metric {
        name: "seawall_config_reloads_total",
        kind: MetricKind::Counter,
        unit: "reloads",
        labels: &[RESULT],
        help: "Reloads of the configuration, by result: applied, or failed, which changes nothing. \
               Increments when a reload ends.",
        remedy: "If failed rises, config.last_error in /status says what is wrong and where.",
    }
    .collected(|stats, samples| {
        samples.add(&["applied"], stats.applied);
        samples.add(&["failed"], stats.failed);
    }),
];
