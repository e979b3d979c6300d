//! The page on loopback, for a run that continues.

use crate::error::{Error, Result};
use crate::page::{PresetText, render};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};
use tiny_http::{Header, Request, Response, Server};

/// Files that change while a run continues.
const WATCHED: [&str; 6] = [
    "log.jsonl",
    "sessions.jsonl",
    "samples",
    ".made.jsonl",
    "report.json",
    "table.json",
];

/// Serves the page of these folders at `127.0.0.1`, until `stop` is set. The page loads itself again when the folders change. Port 0 takes
/// a free one. `ready` is called with the address.
///
/// # Errors
/// The port is in use, or the folders are not those of any command.
pub fn watch(
    folders: &[PathBuf],
    presets: PresetText<'_>,
    port: u16,
    stop: &AtomicBool,
    ready: &mut dyn FnMut(&str),
) -> Result<()> {
    render(folders, presets, true)?;
    let failed = |problem: String| Error::Content {
        path: format!("127.0.0.1:{port}").into(),
        problem,
    };
    let server =
        Server::http((Ipv4Addr::LOCALHOST, port)).map_err(|error| failed(error.to_string()))?;
    let address = server.server_addr().to_string();
    ready(&format!("http://{address}/"));
    while !stop.load(Ordering::Relaxed) {
        let request = server.recv_timeout(Duration::from_millis(200));
        if let Some(request) = request.map_err(|error| failed(error.to_string()))? {
            // A reader that goes away is no error.
            let _ = answer(request, folders, presets, &address);
        }
    }
    Ok(())
}

fn answer(
    request: Request,
    folders: &[PathBuf],
    presets: PresetText<'_>,
    address: &str,
) -> std::io::Result<()> {
    // A page of another site must not read this one through a name that leads here.
    let port = address.rsplit(':').next().unwrap_or_default();
    let host = request
        .headers()
        .iter()
        .find(|header| header.field.equiv("Host"))
        .map(|header| header.value.as_str().to_owned());
    let is_own = host.is_some_and(|host| host == address || host == format!("localhost:{port}"));
    if !is_own {
        return request.respond(Response::from_string("unknown host").with_status_code(403));
    }
    match request.url() {
        "/" => match render(folders, presets, true) {
            Ok(page) => {
                let header = Header::from_bytes("Content-Type", "text/html; charset=utf-8");
                let response = Response::from_string(page);
                request.respond(match header {
                    Ok(header) => response.with_header(header),
                    Err(()) => response,
                })
            }
            Err(error) => {
                request.respond(Response::from_string(error.to_string()).with_status_code(500))
            }
        },
        "/version" => request.respond(Response::from_string(version(folders))),
        _ => request.respond(Response::from_string("no such page").with_status_code(404)),
    }
}

/// A text that changes when the folders do.
fn version(folders: &[PathBuf]) -> String {
    let states = folders.iter().flat_map(|root| {
        WATCHED.iter().map(|name| {
            let found = std::fs::metadata(root.join(name)).ok();
            let changed = found.as_ref().and_then(|found| found.modified().ok());
            let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            format!(
                "{}:{}",
                found.map_or(0, |found| found.len()),
                changed.map_or(0, |time| time.as_millis())
            )
        })
    });
    states.collect::<Vec<_>>().join(" ")
}
