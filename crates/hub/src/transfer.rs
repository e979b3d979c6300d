//! Adding bytes to what has arrived, until all are there.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use futures::StreamExt as _;
use reqwest::{Response, StatusCode, Url, header::CONTENT_RANGE};

use crate::{
    HubError, Result,
    ask::{Answer, Failure, Web},
    error::io,
    fetch::{FetchProgress, Wanted},
    store::BlobPaths,
};

/// Bytes after which an attempt counts as progress.
const PROGRESS: u64 = 64 << 10;

/// Fills `place.part`, resuming and retrying, and gives it its name when its hash is right.
pub(crate) async fn transfer(
    web: &Web,
    wanted: &Wanted,
    answer: &Answer,
    place: &BlobPaths,
    watch: &mut dyn FetchProgress,
) -> Result<()> {
    let url = web.address(&wanted.file, &answer.commit)?;
    let mut wrong = 0;
    loop {
        fill(web, wanted, answer, &url, &place.part, watch).await?;
        watch.verifying();
        let found = answer.hash.of_file(&place.part)?;
        if found == answer.hash {
            return place.keep();
        }
        fs::remove_file(&place.part).map_err(io(&place.part))?;
        wrong += 1;
        if wrong == 2 {
            return Err(HubError::Wrong {
                what: wanted.file.to_string(),
                found: found.to_string(),
                expected: answer.hash.to_string(),
            });
        }
        watch
            .note("the bytes that arrived are not those of the file; once more from the beginning");
    }
}

/// How far a transfer has come over all its attempts.
#[derive(Default)]
struct Course {
    /// The most bytes there were; only more than that is progress.
    most: u64,
    /// How often what had arrived had to be thrown away.
    restarts: u32,
    /// Whether the next attempt asks for everything, as the server refuses to send a part.
    whole: bool,
}

/// Attempts until everything is there.
async fn fill(
    web: &Web,
    wanted: &Wanted,
    answer: &Answer,
    url: &Url,
    part: &Path,
    watch: &mut dyn FetchProgress,
) -> Result<()> {
    let patience = &web.settings.patience;
    let what = wanted.file.to_string();
    let mut course = Course::default();
    let mut failures = 0;
    loop {
        let have = length(part)?;
        if answer.size.is_some_and(|size| have > size) {
            fs::remove_file(part).map_err(io(part))?;
            continue;
        }
        if answer.size == Some(have) {
            return Ok(());
        }
        course.most = course.most.max(have);
        watch.bytes(have);
        let failure = match attempt(web, &what, answer, url, part, &mut course, watch).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if length(part)? >= course.most + PROGRESS {
            failures = 0;
        }
        failures += 1;
        let (reason, asked, limit) = match failure {
            Failure::Lasting(error) => return Err(error),
            Failure::Unreachable(reason) => (reason, None, patience.attempts_to_connect),
            Failure::Passing { reason, asked } => (reason, asked, patience.attempts),
        };
        let asks_too_much = asked.is_some_and(|asked| asked > patience.longest_asked);
        if failures >= limit || asks_too_much || course.restarts >= patience.attempts {
            return Err(HubError::GaveUp {
                what,
                attempts: failures,
                reason: match asked.filter(|_| asks_too_much) {
                    Some(asked) => format!("{reason} and asks to wait {} s", asked.as_secs()),
                    None => reason,
                },
                have: length(part)?,
            });
        }
        let wait = patience.wait(failures, asked);
        watch.note(&format!(
            "{reason}; going on in {:.1} s",
            wait.as_secs_f64()
        ));
        tokio::time::sleep(wait).await;
    }
}

/// One connection: adds what it brings.
async fn attempt(
    web: &Web,
    what: &str,
    answer: &Answer,
    url: &Url,
    part: &Path,
    course: &mut Course,
    watch: &mut dyn FetchProgress,
) -> std::result::Result<(), Failure> {
    let passing = |reason: String| Failure::Passing {
        reason,
        asked: None,
    };
    let lasting = |error: HubError| Failure::Lasting(error);
    let have = length(part).map_err(lasting)?;
    let mut restart = || {
        course.restarts += 1;
        fs::remove_file(part).map_err(|e| Failure::Lasting(io(part)(e)))
    };
    let response = web.get(url, if course.whole { 0 } else { have }).await?;
    // A server that does not know ranges sends everything: the beginning is passed over.
    let (mut pass, offered) = match response.status() {
        StatusCode::PARTIAL_CONTENT => match range(&response) {
            Some((from, total)) if from == have => (0, total),
            _ => {
                return Err(passing(
                    "the server sent another part than was asked for".to_owned(),
                ));
            }
        },
        StatusCode::OK => (have, response.content_length()),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            course.whole = true;
            return Err(web.refused(what, &response));
        }
        // The address of a store is signed for a while; the next answer of the Hub leads to a new one.
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED
            if response.url().origin() != url.origin() =>
        {
            let host = response.url().host_str().unwrap_or("the store").to_owned();
            return Err(passing(format!("{host} answered {}", response.status())));
        }
        _ => return Err(web.refused(what, &response)),
    };
    let size = answer.size.or(offered);
    if let (Some(offered), Some(size)) = (offered, size)
        && offered != size
    {
        return Err(passing(format!(
            "the server offers {offered} bytes, expected {size}: an error page or another file"
        )));
    }
    if size.is_some_and(|size| size < have) {
        restart()?;
        return Err(passing("more had arrived than the file has".to_owned()));
    }
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(part)
        .map_err(|e| lasting(io(part)(e)))?;
    let mut now = have;
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk
            .map_err(|e| web.failure(e))
            .map_err(|failure| match failure {
                // The connection was there.
                Failure::Unreachable(reason) => passing(reason),
                other => other,
            })?;
        let passed = usize::try_from(pass).unwrap_or(usize::MAX).min(chunk.len());
        pass -= passed as u64;
        let new = &chunk[passed..];
        if size.is_some_and(|size| now + new.len() as u64 > size) {
            drop(file);
            restart()?;
            return Err(passing(
                "the server sent more bytes than the file has".to_owned(),
            ));
        }
        file.write_all(new).map_err(|e| lasting(io(part)(e)))?;
        now += new.len() as u64;
        watch.bytes(now);
    }
    match size {
        Some(size) if now < size => Err(passing(format!(
            "the connection ended after {now} of {size} bytes"
        ))),
        _ => Ok(()),
    }
}

/// Where the bytes of a partial answer begin, and how long the whole is.
fn range(response: &Response) -> Option<(u64, Option<u64>)> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (span, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let from = span.split_once('-')?.0.trim().parse().ok()?;
    Some((from, total.trim().parse().ok()))
}

/// Bytes of a file; 0 if there is none.
fn length(path: &Path) -> Result<u64> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(io(path)(error)),
    }
}
