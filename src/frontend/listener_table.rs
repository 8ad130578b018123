//! The listeners that are open now, and what a reload makes of them. First comes everything that
//! can fail: certificates and sockets. Then comes everything that cannot.

use std::io;
use std::sync::Arc;

use rustls::server::ProducesTickets;
use tokio::sync::watch;

use super::certificates::Certificates;
use super::listen::{BindError, BoundListener, bind_error_reason};
use super::listener_settings::ListenerSettings;
use super::open_listener::OpenListener;
use super::worker_share::OpenByWorker;
use super::{ListenAddress, Listener};

/// The open listeners, in the order of the file.
pub(super) struct ListenerTable {
    listeners: watch::Sender<Listeners>,
    open_by_worker: OpenByWorker,
    tickets: Arc<dyn ProducesTickets>,
}

/// The open listeners at one moment.
#[derive(Clone, Default)]
pub(super) struct Listeners {
    pub(super) open: Vec<Arc<OpenListener>>,
    /// The server stops: there will be no others.
    pub(super) is_closed: bool,
}

/// The listeners of a configuration, ready to be used: nothing can fail any more. Dropping it
/// closes those that are new.
pub struct PreparedListeners {
    /// In the order of the file, with the settings of new connections.
    next: Vec<(Arc<OpenListener>, Arc<ListenerSettings>)>,
    opened: Vec<Arc<OpenListener>>,
}

impl ListenerTable {
    /// A table without listeners.
    pub(super) fn new(workers: usize, tickets: Arc<dyn ProducesTickets>) -> ListenerTable {
        ListenerTable {
            listeners: watch::Sender::default(),
            open_by_worker: OpenByWorker::new(workers),
            tickets,
        }
    }

    /// Watches the open listeners.
    pub(super) fn watch(&self) -> watch::Receiver<Listeners> {
        self.listeners.subscribe()
    }

    /// The listeners that are open now.
    pub(super) fn open(&self) -> Vec<Arc<OpenListener>> {
        self.listeners.borrow().open.clone()
    }

    /// All certificates in use.
    pub(super) fn certificates(&self) -> Vec<Arc<Certificates>> {
        let listeners = self.open();
        let settings = listeners.iter().map(|listener| listener.settings());
        settings
            .filter_map(|settings| settings.certificates().cloned())
            .collect()
    }

    /// Adds bound listeners to those that are there.
    pub(super) fn add(&self, bound: Vec<BoundListener>) -> Result<(), BindError> {
        for bound in bound {
            let listener = OpenListener::new(bound, &self.open_by_worker, &self.tickets)?;
            self.listeners
                .send_modify(|listeners| listeners.open.push(listener));
        }
        Ok(())
    }

    /// Prepares these listeners: binds those that are new, and loads certificates.
    pub(super) fn prepare(&self, wanted: &[Listener]) -> Result<PreparedListeners, BindError> {
        let mut leaving = self.open();
        let mut staying: Vec<Option<Arc<OpenListener>>> = Vec::new();
        for listener in wanted {
            let is_same = |open: &Arc<OpenListener>| open.is_at(&listener.address);
            let same = leaving.iter().position(is_same);
            staying.push(same.map(|at| leaving.remove(at)));
        }
        // Dropping it on the way removes what was created.
        let mut prepared = PreparedListeners {
            next: Vec::new(),
            opened: Vec::new(),
        };
        for (listener, staying) in wanted.iter().zip(staying) {
            let next = if let Some(open) = staying {
                let settings = open.settings().succeed(listener, &self.tickets)?;
                (open, settings)
            } else {
                let bound = BoundListener::bind(listener);
                let bound = bound.map_err(|error| say_who_has_it(error, &leaving))?;
                let open = OpenListener::new(bound, &self.open_by_worker, &self.tickets)?;
                prepared.opened.push(Arc::clone(&open));
                let settings = open.settings();
                (open, settings)
            };
            prepared.next.push(next);
        }
        Ok(prepared)
    }

    /// Uses what was prepared. Returns the listeners that were opened, and those that are no longer
    /// in the table and have to be closed. Cannot fail.
    pub(super) fn apply(
        &self,
        mut prepared: PreparedListeners,
    ) -> (Vec<Arc<OpenListener>>, Vec<Arc<OpenListener>>) {
        let next = std::mem::take(&mut prepared.next);
        let mut closed = Vec::new();
        let was_applied = self.listeners.send_if_modified(|listeners| {
            // The server stops: what is new would never be closed.
            if listeners.is_closed {
                return false;
            }
            let open = next.iter().map(|(listener, settings)| {
                listener.set_settings(Arc::clone(settings));
                Arc::clone(listener)
            });
            let before = std::mem::replace(&mut listeners.open, open.collect());
            let is_gone = |listener: &Arc<OpenListener>| {
                let mut now = listeners.open.iter();
                !now.any(|other| Arc::ptr_eq(other, listener))
            };
            closed = before.into_iter().filter(is_gone).collect();
            true
        });
        let opened = if was_applied {
            std::mem::take(&mut prepared.opened)
        } else {
            Vec::new()
        };
        (opened, closed)
    }

    /// Closes all listeners for ever. The files of Unix sockets stay: the next server replaces
    /// them, and may have done so already.
    pub(super) fn close(&self) -> Vec<Arc<OpenListener>> {
        let mut open = Vec::new();
        self.listeners.send_modify(|listeners| {
            listeners.is_closed = true;
            open.clone_from(&listeners.open);
        });
        for listener in &open {
            listener.close();
        }
        open
    }
}

impl Drop for PreparedListeners {
    fn drop(&mut self) {
        for listener in &self.opened {
            listener.remove_file();
        }
    }
}

/// An address may be in use by a listener that the reload would close afterwards.
fn say_who_has_it(error: BindError, leaving: &[Arc<OpenListener>]) -> BindError {
    let (address, source) = match error {
        BindError::Socket {
            address, source, ..
        } if source.kind() == io::ErrorKind::AddrInUse => (address, source),
        error => return error,
    };
    let is_in_the_way = |other: &&Arc<OpenListener>| match (&address, other.address()) {
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => {
            one.port() == other.port() && one.is_ipv4() == other.is_ipv4()
        }
        _ => false,
    };
    let reason = match leaving.iter().find(is_in_the_way) {
        None => bind_error_reason(&source),
        Some(other) => {
            let other = other.address();
            format!(
                "{other} has this port and would be closed only afterwards: remove {other} by one \
                 reload, and add {address} by the next"
            )
        }
    };
    BindError::Socket {
        address,
        reason,
        source,
    }
}
