//! The files that the operator writes: each round's differs from the last one in several ways.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

/// Where the program listens.
#[derive(Clone, Copy)]
pub struct Addresses {
    pub viewers: SocketAddr,
    /// For a listener that comes and goes.
    pub spare: SocketAddr,
    pub admin: SocketAddr,
    pub origin: SocketAddr,
}

/// The file of a round.
pub fn text(round: u64, addresses: &Addresses, folder: &Path) -> String {
    let Addresses {
        viewers,
        spare,
        admin,
        origin,
    } = addresses;
    let folder = folder.display();
    let limits = 20_000 + round % 5;
    let weight = 1 + round % 3;
    let queue = 1000 + round % 7;
    let mut text = format!(
        "[server]\ndrain_max = \"90s\"\n\
         [admin]\nlisten = \"{admin}\"\n\
         [limits]\nconnections_max = {limits}\n\
         [cache]\nmemory = \"256MiB\"\n\
         [[listener]]\nlisten = \"{viewers}\"\n\
         [[origin]]\nname = \"origin\"\nqueue_max = {queue}\n\
         endpoints = [{{ url = \"http://{origin}\", weight = {weight} }}]\n\
         [[route]]\nname = \"kept\"\npath = \"/kept\"\norigin = \"origin\"\n"
    );
    if round % 2 == 1 {
        text.push_str("[[route]]\nname = \"spare\"\npath = \"/spare\"\norigin = \"origin\"\n");
    }
    if has_spare_listener(round) {
        // Writing to a string does not fail.
        let _ = write!(text, "[[listener]]\nlisten = \"{spare}\"\n");
    }
    if round % 3 == 2 {
        let _ = write!(
            text,
            "[access_log]\nenabled = true\nsample = 1000\npath = \"{folder}/access.log\"\n"
        );
    }
    text
}

/// Whether the file of a round has the listener that comes and goes.
pub fn has_spare_listener(round: u64) -> bool {
    round % 4 >= 2
}
