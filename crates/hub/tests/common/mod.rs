//! A server on loopback that speaks the Hub's protocol below `/OWNER/NAME/resolve/` and plain HTTP elsewhere, with faults that tests choose.
#![allow(dead_code, reason = "not every test uses every helper")]

pub(crate) mod receive;
pub(crate) mod runs;

use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead as _, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use sdft_assets::{HubFile, Remote, WebFile};
use sdft_hub::{Fetcher, RetryPolicy, Settings, Wanted};

use receive::{Received, Reply};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A fault in one response.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// None.
    None,
    /// This many bytes of the body, then the connection is cut.
    CutAfter(usize),
    /// This many bytes, announced as the whole body.
    Short(usize),
    /// No Content-Length, and only this many bytes.
    Unannounced(usize),
    /// The right length, but other bytes.
    Wrong,
    /// A page with this status.
    Page(u16, &'static str),
    /// This status with a Retry-After in seconds.
    Busy(u16, Option<u64>),
    /// Chunks of this many bytes, with a pause in milliseconds.
    Trickle(usize, u64),
    /// The whole file, regardless of the requested range.
    NoRange,
    /// More bytes than the file has.
    Long,
    /// No response.
    Stall,
    /// Another range than requested.
    OtherRange,
    /// A redirect to this address.
    To(String),
    /// 416 for every range request.
    NoParts,
    /// The requested range, whatever the version in If-Range.
    NoVersions,
    /// A page of HTML in place of the file.
    Html,
    /// Half of the body; then the file is replaced by these bytes and the connection is cut.
    Replace(Vec<u8>),
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) from: Option<usize>,
    pub(crate) if_range: Option<String>,
    pub(crate) token: Option<String>,
}

struct State {
    files: Mutex<HashMap<String, Vec<u8>>>,
    heads: Mutex<VecDeque<Fault>>,
    gets: Mutex<VecDeque<Fault>>,
    log: Mutex<Vec<Request>>,
    sent: AtomicU64,
    /// Headers to omit.
    without: Mutex<Vec<&'static str>>,
    /// Whether the listing of files gets no response.
    silent: AtomicBool,
    /// Replaces the ETag.
    etag: Mutex<Option<String>>,
    commit: Mutex<String>,
    received: Mutex<Received>,
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: String,
    state: Arc<State>,
}

impl Server {
    /// Serves `files` at their paths in every repository.
    pub(crate) fn start(files: &[(&str, Vec<u8>)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            files: Mutex::new(
                files
                    .iter()
                    .map(|(path, bytes)| ((*path).to_owned(), bytes.clone()))
                    .collect(),
            ),
            heads: Mutex::default(),
            gets: Mutex::default(),
            log: Mutex::default(),
            sent: AtomicU64::new(0),
            without: Mutex::default(),
            silent: AtomicBool::new(false),
            etag: Mutex::default(),
            commit: Mutex::new(COMMIT.to_owned()),
            received: Mutex::default(),
        });
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&serving);
                thread::spawn(move || {
                    // A client that disconnects is not an error of the server.
                    let _ = answer(&stream, &state);
                });
            }
        });
        Self { address, state }
    }

    /// The faults of the next GET responses.
    pub(crate) fn gets(&self, faults: &[Fault]) -> &Self {
        self.state
            .gets
            .lock()
            .unwrap()
            .extend(faults.iter().cloned());
        self
    }

    /// The next GET responses have no faults.
    pub(crate) fn recover(&self) -> &Self {
        self.state.gets.lock().unwrap().clear();
        self
    }

    /// The faults of the next HEAD responses.
    pub(crate) fn heads(&self, faults: &[Fault]) -> &Self {
        self.state
            .heads
            .lock()
            .unwrap()
            .extend(faults.iter().cloned());
        self
    }

    pub(crate) fn without(&self, headers: &[&'static str]) -> &Self {
        self.state.without.lock().unwrap().extend(headers);
        self
    }

    /// The listing of files gets no response.
    pub(crate) fn silent(&self) -> &Self {
        self.state.silent.store(true, Ordering::SeqCst);
        self
    }

    /// Replaces the content of a file.
    pub(crate) fn replace(&self, path: &str, bytes: &[u8]) -> &Self {
        let mut files = self.state.files.lock().unwrap();
        files.insert(path.to_owned(), bytes.to_vec());
        self
    }

    /// A file of this server, without the Hub's protocol.
    pub(crate) fn plain(&self, path: &str) -> Wanted {
        let url = format!("{}/{path}", self.address);
        Remote::Web(WebFile { url }).into()
    }

    pub(crate) fn etag(&self, etag: &str) -> &Self {
        *self.state.etag.lock().unwrap() = Some(etag.to_owned());
        self
    }

    pub(crate) fn commit(&self, commit: &str) -> &Self {
        *self.state.commit.lock().unwrap() = commit.to_owned();
        self
    }

    /// What was published, and how requests of a client that publishes are answered.
    pub(crate) fn received(&self) -> MutexGuard<'_, Received> {
        self.state.received.lock().unwrap()
    }

    pub(crate) fn log(&self) -> Vec<Request> {
        self.state.log.lock().unwrap().clone()
    }

    /// Number of requests of a method.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.log()
            .iter()
            .filter(|request| request.method == method)
            .count()
    }

    /// Total bytes of files sent.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// A fetcher with short delays.
    pub(crate) fn fetcher(&self, cache: &Path) -> Fetcher {
        Fetcher::new(quick(Settings::new(&self.address, cache))).unwrap()
    }
}

/// Settings with short delays.
pub(crate) fn quick(mut settings: Settings) -> Settings {
    settings.retry = RetryPolicy {
        max_attempts: 4,
        max_connect_attempts: 2,
        initial_delay: Duration::from_millis(5),
        max_delay: Duration::from_millis(20),
        max_retry_after: Duration::from_secs(3),
        read_timeout: Duration::from_millis(400),
    };
    settings
}

/// A file on the server.
pub(crate) fn wanted(path: &str) -> Wanted {
    HubFile::parse(&format!("hf:owner/name/{path}"))
        .unwrap()
        .unwrap()
        .into()
}

/// Asks for a file of the Hub at another revision.
pub(crate) fn at_revision(wanted: &mut Wanted, revision: &str) {
    let Remote::Hub(file) = &mut wanted.file else {
        panic!("{wanted:?}");
    };
    file.revision = revision.to_owned();
}

/// Bytes without repetition.
pub(crate) fn content(n: usize) -> Vec<u8> {
    let mut state = 1_u64;
    (0..n)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

fn answer(stream: &TcpStream, state: &State) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) = (
        words.next().unwrap_or_default().to_owned(),
        words.next().unwrap_or_default().to_owned(),
    );
    let mut request = Request {
        method,
        path,
        from: None,
        if_range: None,
        token: None,
    };
    let (mut length, mut is_chunked) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let from = value.trim_start_matches("bytes=").trim_end_matches('-');
                request.from = from.parse().ok();
            }
            "if-range" => request.if_range = Some(value.to_owned()),
            "authorization" => request.token = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap_or(0),
            "transfer-encoding" => is_chunked = value == "chunked",
            _ => {}
        }
    }
    let body = receive::body(&mut reader, length, is_chunked)?;
    state.log.lock().unwrap().push(request.clone());
    let address = format!("http://{}", stream.local_addr()?);
    let received = {
        let mut received = state.received.lock().unwrap();
        received.reply(&request.method, &request.path, &body, &address)
    };
    match received {
        Some(Reply::Json(status, value)) => return json(stream, status, &value.to_string()),
        Some(Reply::Cut) => return Ok(()),
        None => {}
    }
    let faults = if request.method == "HEAD" {
        &state.heads
    } else {
        &state.gets
    };
    let fault = match request.path.starts_with("/api/") {
        true => Fault::None,
        false => faults.lock().unwrap().pop_front().unwrap_or(Fault::None),
    };
    reply(stream, state, &request, &fault)
}

fn json(mut stream: &TcpStream, status: u16, body: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn reply(
    mut stream: &TcpStream,
    state: &State,
    request: &Request,
    fault: &Fault,
) -> std::io::Result<()> {
    if request.path.starts_with("/api/") {
        if state.silent.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_secs(30));
        }
        let entries: Vec<_> = state
            .files
            .lock()
            .unwrap()
            .iter()
            .map(|(path, bytes)| serde_json::json!({"type": "file", "oid": "0", "size": bytes.len(), "path": path}))
            .collect();
        return json(stream, 200, &serde_json::to_string(&entries).unwrap());
    }
    let path = request.path.split('?').next().unwrap_or_default();
    let is_hub = path.contains("/resolve/");
    let file = match path.split_once("/resolve/") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => path.trim_start_matches('/'),
    };
    let bytes = state.files.lock().unwrap().get(file).cloned();
    let Some(bytes) = bytes else {
        return write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
    };
    let mut without = state.without.lock().unwrap().clone();
    // A redirect of a moved repository has no further headers; one to the storage server describes the file.
    if matches!(fault, Fault::To(address) if address.starts_with('/')) {
        without.extend(["X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size", "ETag"]);
    }
    let head = request.method == "HEAD";
    let mut headers: Vec<(&str, String)> = vec![("Connection", "close".to_owned())];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    std::fs::write(&path, &bytes).unwrap();
    let hash = sdft_files::sha256_file(&path).unwrap();
    let own = match is_hub {
        true => hash,
        false => format!("0x{:.12}", hash),
    };
    if !is_hub {
        without.extend(["X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size"]);
    }
    let etag = state.etag.lock().unwrap().clone().unwrap_or(own);
    let is_stale = !matches!(fault, Fault::NoVersions)
        && matches!(&request.if_range, Some(version) if *version != format!("\"{etag}\""));
    headers.push(("X-Repo-Commit", state.commit.lock().unwrap().clone()));
    headers.push(("X-Linked-Etag", format!("\"{etag}\"")));
    headers.push(("X-Linked-Size", bytes.len().to_string()));
    headers.push(("ETag", format!("\"{etag}\"")));
    let from = match fault {
        Fault::NoRange => 0,
        Fault::NoVersions => request.from.unwrap_or(0).min(bytes.len()),
        _ if is_stale => 0,
        _ => request.from.unwrap_or(0).min(bytes.len()),
    };
    let mut status = "200 OK".to_owned();
    if request.from.is_some() && !is_stale && !matches!(fault, Fault::NoRange) {
        status = "206 Partial Content".to_owned();
        let from = if matches!(fault, Fault::OtherRange) {
            from / 2
        } else {
            from
        };
        headers.push((
            "Content-Range",
            format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
        ));
    }
    let mut body = bytes[from..].to_vec();
    let mut announced = Some(body.len());
    match fault {
        Fault::Page(code, text) => {
            status = format!("{code} Page");
            body = text.as_bytes().to_vec();
            announced = Some(body.len());
        }
        Fault::NoParts if request.from.is_some() => {
            status = "416 Range Not Satisfiable".to_owned();
            body = Vec::new();
            announced = Some(0);
        }
        Fault::Busy(code, wait) => {
            status = format!("{code} Busy");
            body = Vec::new();
            announced = Some(0);
            headers.extend(wait.map(|wait| ("Retry-After", wait.to_string())));
        }
        Fault::Short(n) => {
            body.truncate(*n);
            announced = Some(body.len());
        }
        Fault::Unannounced(n) => {
            body.truncate(*n);
            announced = None;
        }
        Fault::Html => headers.push(("Content-Type", "text/html; charset=utf-8".to_owned())),
        Fault::Wrong => body.iter_mut().for_each(|b| *b ^= 0xff),
        Fault::Long => {
            body.extend_from_slice(&[0; 100]);
            announced = None;
        }
        Fault::To(address) => {
            status = "302 Found".to_owned();
            body = Vec::new();
            announced = Some(0);
            headers.push(("Location", address.clone()));
        }
        _ => {}
    }
    if let Some(n) = announced {
        headers.push(("Content-Length", n.to_string()));
    }
    write!(stream, "HTTP/1.1 {status}\r\n")?;
    for (name, value) in headers.iter().filter(|(name, _)| !without.contains(name)) {
        write!(stream, "{name}: {value}\r\n")?;
    }
    write!(stream, "\r\n")?;
    if head {
        return Ok(());
    }
    let mut send = |piece: &[u8]| -> std::io::Result<()> {
        stream.write_all(piece)?;
        state.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
        Ok(())
    };
    match fault {
        Fault::CutAfter(n) => send(&body[..(*n).min(body.len())])?,
        Fault::Replace(new) => {
            send(&body[..body.len() / 2])?;
            let mut files = state.files.lock().unwrap();
            files.insert(file.to_owned(), new.clone());
        }
        Fault::Trickle(n, pause) => {
            for piece in body.chunks(*n) {
                send(piece)?;
                thread::sleep(Duration::from_millis(*pause));
            }
        }
        Fault::Stall => {
            send(&body[..body.len() / 2])?;
            thread::sleep(Duration::from_secs(2));
        }
        _ => send(&body)?,
    }
    Ok(())
}
