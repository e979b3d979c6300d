//! Downloads a file, resuming and retrying until it is complete.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use futures::StreamExt as _;
use reqwest::{Response, StatusCode, header::CONTENT_RANGE};

use crate::{
    HubError, Result,
    cache_entry::CacheEntry,
    client::{Failure, HubClient, Source},
    digest::Hash,
    error::io,
    fetch::FetchProgress,
};

/// An attempt makes progress if it adds at least this many bytes.
const PROGRESS: u64 = 64 << 10;

/// Downloads `entry.part`, resuming and retrying, and verifies its hash, if that is known.
pub(crate) async fn transfer(
    client: &HubClient,
    source: &Source,
    hash: Option<&Hash>,
    entry: &CacheEntry,
    progress: &mut dyn FetchProgress,
) -> Result<()> {
    let mut mismatches = 0;
    loop {
        fill(client, source, &entry.part, progress).await?;
        progress.verifying();
        let Some(expected) = hash else {
            return Ok(());
        };
        let found = expected.of_file(&entry.part)?;
        if found == *expected {
            return Ok(());
        }
        fs::remove_file(&entry.part).map_err(io(&entry.part))?;
        mismatches += 1;
        if mismatches == 2 {
            return Err(HubError::HashMismatch {
                what: source.what.clone(),
                found: found.to_string(),
                expected: expected.to_string(),
            });
        }
        progress
            .note("the downloaded bytes have the wrong hash; downloading again from the beginning");
    }
}

/// The state of a download over all its attempts.
#[derive(Default)]
struct TransferState {
    /// The most bytes so far; an attempt makes progress only beyond them.
    most: u64,
    /// How often the partial file was deleted.
    restarts: u32,
    /// Whether to request the whole file, because the server rejected a range.
    whole: bool,
}

/// Repeats attempts until the file is complete.
async fn fill(
    client: &HubClient,
    source: &Source,
    part: &Path,
    progress: &mut dyn FetchProgress,
) -> Result<()> {
    let retry = &client.settings.retry;
    let mut state = TransferState::default();
    let mut failures = 0;
    loop {
        let have = length(part)?;
        if source.size.is_some_and(|size| have > size) || have > 0 && !source.resumable {
            fs::remove_file(part).map_err(io(part))?;
            continue;
        }
        if source.size == Some(have) {
            return Ok(());
        }
        state.most = state.most.max(have);
        progress.bytes(have);
        let failure = match attempt(client, source, part, &mut state, progress).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if length(part)? >= state.most + PROGRESS {
            failures = 0;
        }
        failures += 1;
        let (reason, retry_after, limit) = match failure {
            Failure::Permanent(error) => return Err(error),
            Failure::Unreachable(reason) => (reason, None, retry.max_connect_attempts),
            Failure::Transient {
                reason,
                retry_after,
            } => (reason, retry_after, retry.max_attempts),
        };
        let retry_after_is_too_long =
            retry_after.is_some_and(|delay| delay > retry.max_retry_after);
        if failures >= limit || retry_after_is_too_long || state.restarts >= retry.max_attempts {
            return Err(HubError::GaveUp {
                what: source.what.clone(),
                attempts: failures,
                reason: match retry_after.filter(|_| retry_after_is_too_long) {
                    Some(delay) => {
                        format!("{reason} and asks to wait {} s", delay.as_secs())
                    }
                    None => reason,
                },
                have: length(part)?,
            });
        }
        let wait = retry.delay(failures, retry_after);
        progress.note(&format!(
            "{reason}; resuming in {:.1} s",
            wait.as_secs_f64()
        ));
        tokio::time::sleep(wait).await;
    }
}

/// One request: appends the bytes it returns.
async fn attempt(
    client: &HubClient,
    source: &Source,
    part: &Path,
    state: &mut TransferState,
    progress: &mut dyn FetchProgress,
) -> std::result::Result<(), Failure> {
    let transient = |reason: String| Failure::Transient {
        reason,
        retry_after: None,
    };
    let permanent = |error: HubError| Failure::Permanent(error);
    let have = length(part).map_err(permanent)?;
    let mut restart = || {
        state.restarts += 1;
        fs::remove_file(part).map_err(|e| Failure::Permanent(io(part)(e)))
    };
    let from = if state.whole { 0 } else { have };
    let response = client.get(source, from).await?;
    if source.is_other_version(&response, have) {
        return Err(permanent(HubError::Changed {
            what: source.what.clone(),
        }));
    }
    // A server without range support sends the whole file: skip the beginning.
    let (mut pass, offered) = match response.status() {
        StatusCode::PARTIAL_CONTENT => match range(&response) {
            Some((from, total)) if from == have => (0, total),
            _ => {
                return Err(transient(
                    "the server sent another range than requested".to_owned(),
                ));
            }
        },
        StatusCode::OK => (have, response.content_length()),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            state.whole = true;
            return Err(client.refused(source, &response));
        }
        // The storage server's address expires; the next response of the Hub has a new one.
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED
            if response.url().origin() != source.url.origin() =>
        {
            let host = response
                .url()
                .host_str()
                .unwrap_or("the storage server")
                .to_owned();
            return Err(transient(format!("{host} answered {}", response.status())));
        }
        _ => return Err(client.refused(source, &response)),
    };
    let size = source.size.or(offered);
    if let (Some(offered), Some(size)) = (offered, size)
        && offered != size
    {
        return Err(transient(format!(
            "the server offers {offered} bytes, expected {size}: an error page or another file"
        )));
    }
    if size.is_some_and(|size| size < have) {
        restart()?;
        return Err(transient(
            "the partial file is longer than the file".to_owned(),
        ));
    }
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(part)
        .map_err(|e| permanent(io(part)(e)))?;
    let mut now = have;
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk
            .map_err(|e| client.failure(e))
            .map_err(|failure| match failure {
                // The connection was established before.
                Failure::Unreachable(reason) => transient(reason),
                other => other,
            })?;
        let passed = usize::try_from(pass).unwrap_or(usize::MAX).min(chunk.len());
        pass -= passed as u64;
        let new = &chunk[passed..];
        if size.is_some_and(|size| now + new.len() as u64 > size) {
            drop(file);
            restart()?;
            return Err(transient(
                "the server sent more bytes than the file has".to_owned(),
            ));
        }
        file.write_all(new).map_err(|e| permanent(io(part)(e)))?;
        now += new.len() as u64;
        progress.bytes(now);
    }
    match size {
        Some(size) if now < size => Err(transient(format!(
            "the connection closed after {now} of {size} bytes"
        ))),
        _ => Ok(()),
    }
}

/// The first byte of a partial response, and the size of the whole file.
fn range(response: &Response) -> Option<(u64, Option<u64>)> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (span, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let from = span.split_once('-')?.0.trim().parse().ok()?;
    Some((from, total.trim().parse().ok()))
}

/// Size of a file in bytes; 0 if it does not exist.
fn length(path: &Path) -> Result<u64> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(io(path)(error)),
    }
}
