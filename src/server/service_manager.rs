//! Tells the service manager (systemd) how the process is: `sd_notify`. Without `NOTIFY_SOCKET` in
//! the environment it says nothing. A message that cannot be sent is lost, as systemd advises: the
//! server works all the same.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::control::ControlSender;
use super::liveness::LivenessMonitor;
use crate::frontend::Frontend;

/// How often the status line is renewed where systemd watches nothing.
const STATUS_INTERVAL: Duration = Duration::from_secs(30);

/// Pause between the checks whether all workers have started.
const START_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// The service manager of this process, if there is one.
#[derive(Default)]
pub(super) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// The service is restarted if it reports nothing for this long.
    watchdog: Option<Duration>,
    /// Another process reports to it in place of this one.
    is_handed_over: AtomicBool,
}

/// What the environment says of the service manager.
struct Environment<'a> {
    notify_socket: Option<&'a OsStr>,
    watchdog_usec: Option<&'a OsStr>,
    watchdog_pid: Option<&'a OsStr>,
}

impl ServiceManager {
    /// The one that the environment names.
    pub(super) fn from_environment() -> ServiceManager {
        let [socket, usec, pid] =
            ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"].map(std::env::var_os);
        let environment = Environment {
            notify_socket: socket.as_deref(),
            watchdog_usec: usec.as_deref(),
            watchdog_pid: pid.as_deref(),
        };
        let manager = ServiceManager::of(&environment, std::process::id());
        manager.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot reach the service manager by NOTIFY_SOCKET: {error}");
            ServiceManager::default()
        })
    }

    fn of(environment: &Environment<'_>, own_pid: u32) -> io::Result<ServiceManager> {
        let Some(name) = environment.notify_socket.filter(|name| !name.is_empty()) else {
            return Ok(ServiceManager::default());
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address(name)?)?;
        // A service manager that hangs delays nothing here.
        socket.set_nonblocking(true)?;
        let number = |text: Option<&OsStr>| text?.to_str()?.parse::<u64>().ok();
        let is_for_other =
            number(environment.watchdog_pid).is_some_and(|pid| pid != u64::from(own_pid));
        let usec = number(environment.watchdog_usec).filter(|usec| *usec > 0 && !is_for_other);
        Ok(ServiceManager {
            socket: Some(socket),
            watchdog: usec.map(Duration::from_micros),
            is_handed_over: AtomicBool::new(false),
        })
    }

    /// The server is ready, also after a reload that failed: the service manager waits for this.
    pub(super) fn report_ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// A reload begins. [`ServiceManager::report_ready`] must follow.
    pub(super) fn report_reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// The server drains and ends. The service manager expects no other state after this.
    pub(super) fn report_stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining");
    }

    /// Another process is the service from now on. It reports the rest: what this one does means
    /// nothing for the service any more.
    pub(super) fn hand_over_to(&self, pid: u32) {
        self.send(&format!("MAINPID={pid}"));
        self.is_handed_over.store(true, Ordering::Relaxed);
    }

    fn report_alive(&self, status: &str) {
        self.send(&format!("WATCHDOG=1\nSTATUS={status}"));
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.socket else {
            return;
        };
        if self.is_handed_over.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::debug!(%error, "the service manager takes no message: {error}");
        }
    }
}

/// The address of a socket: a path, or `@` and an abstract name.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().split_first() {
        #[cfg(target_os = "linux")]
        Some((b'@', name)) => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(name)
        }
        _ => SocketAddr::from_pathname(name),
    }
}

/// Waits until every worker has started.
pub(super) async fn wait_for_workers(monitor: &LivenessMonitor) {
    while monitor.check_all().await.silent > 0 {
        sleep(START_CHECK_INTERVAL).await;
    }
}

/// Reports that the server is ready, and then that it lives as long as every worker answers, and
/// the control task too.
pub(super) async fn report_life(
    manager: Arc<ServiceManager>,
    monitor: Arc<LivenessMonitor>,
    frontend: Arc<Frontend>,
    control: ControlSender,
) {
    if manager.socket.is_none() {
        return;
    }
    let status = || format!("{} viewer connections", frontend.stats().open);
    manager.report_ready(&status());
    let mut ticks = interval(manager.watchdog.map_or(STATUS_INTERVAL, |all| all / 2));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let workers = monitor.check_all().await;
        if workers.silent > 0 || !control.is_answered().await {
            tracing::error!(silent = workers.silent, "a thread does not answer");
            continue;
        }
        manager.report_alive(&status());
    }
}

#[cfg(test)]
mod tests {
    use super::super::control;
    use super::super::control::ControlRequest;
    use super::super::liveness::monitor_workers;
    use super::*;
    use crate::frontend::Limits;

    const OWN_PID: u32 = 7;

    /// A service manager with its socket, and what the environment says of the watchdog.
    fn manager(usec: Option<&str>, pid: Option<&str>) -> (ServiceManager, UnixDatagram) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify.sock");
        let received = UnixDatagram::bind(&path).unwrap();
        received.set_nonblocking(true).unwrap();
        let environment = Environment {
            notify_socket: Some(path.as_os_str()),
            watchdog_usec: usec.map(OsStr::new),
            watchdog_pid: pid.map(OsStr::new),
        };
        let manager = ServiceManager::of(&environment, OWN_PID).unwrap();
        (manager, received)
    }

    fn message(received: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 256];
        let count = received.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..count].to_vec()).unwrap())
    }

    #[test]
    fn says_nothing_without_a_service_manager() {
        let nobody = Environment {
            notify_socket: None,
            watchdog_usec: Some(OsStr::new("1000000")),
            watchdog_pid: None,
        };
        let manager = ServiceManager::of(&nobody, OWN_PID).unwrap();
        assert!(manager.socket.is_none() && manager.watchdog.is_none());
        manager.report_ready("");
        manager.report_stopping();
    }

    #[test]
    fn ignores_the_watchdog_of_another_process() {
        let second = Some(Duration::from_secs(1));
        for (pid, watchdog) in [(None, second), (Some("7"), second), (Some("8"), None)] {
            let (manager, _received) = manager(Some("1000000"), pid);
            assert_eq!(manager.watchdog, watchdog, "{pid:?}");
        }
        for usec in [None, Some("0"), Some("soon")] {
            assert_eq!(manager(usec, None).0.watchdog, None, "{usec:?}");
        }
    }

    /// `Type=notify-reload` fails a reload whose time does not come with it.
    #[test]
    fn reload_is_reported_with_its_time() {
        let (manager, received) = manager(None, None);
        manager.report_reloading();
        let text = message(&received).unwrap();
        let usec = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(usec.parse::<u64>().unwrap() > 0, "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn hung_worker_stops_the_watchdog() {
        let (manager, received) = manager(Some("10000000"), None);
        let (monitor, mut responders) = monitor_workers(2);
        let (control, mut requests) = control::channel();
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                if let ControlRequest::Ping(answered) = request {
                    answered.send(()).unwrap();
                }
            }
        });
        let second = responders.pop().unwrap();
        tokio::spawn(responders.pop().unwrap().run());
        let frontend = Arc::new(Frontend::new(Limits::default(), 1).unwrap());
        let (manager, monitor) = (Arc::new(manager), Arc::new(monitor));
        tokio::spawn(async move {
            wait_for_workers(&monitor).await;
            report_life(manager, monitor, frontend, control).await;
        });
        sleep(Duration::from_mins(1)).await;
        assert_eq!(message(&received), None, "a worker has not started");
        let second = tokio::spawn(second.run());
        sleep(Duration::from_secs(30)).await;
        let ready = "READY=1\nSTATUS=0 viewer connections";
        assert_eq!(message(&received).as_deref(), Some(ready));
        let mut alive = 0;
        while let Some(text) = message(&received) {
            assert_eq!(text, "WATCHDOG=1\nSTATUS=0 viewer connections");
            alive += 1;
        }
        assert!((5..=7).contains(&alive), "{alive} in 30 s");
        second.abort();
        sleep(Duration::from_mins(1)).await;
        assert_eq!(message(&received), None);
    }
}
