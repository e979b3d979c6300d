//! A server with faults: the right bytes or a clear error, and the same on the next call.

mod common;

use std::{fs, path::Path, sync::Arc, thread, time::Instant};

use common::{COMMIT, Fault, Server, at_revision, content, quick, wanted};
use sdft_hub::{FetchProgress, Fetched, Fetcher, HubError, NoopFetchProgress, Settings};

const N: usize = 400_000;

fn fetch(fetcher: &Fetcher, path: &str) -> Result<Fetched, HubError> {
    fetcher.fetch(&wanted(path), &mut NoopFetchProgress)
}

/// Fetches with these faults and expects the right bytes, twice.
fn survives(faults: &[Fault]) -> Server {
    let bytes = content(N);
    let server = Server::start(&[("a/b.pt", bytes.clone())]);
    server.gets(faults);
    let cache = tempfile::tempdir().unwrap();
    let fetcher = server.fetcher(cache.path());
    let fetched = fetch(&fetcher, "a/b.pt").unwrap_or_else(|error| panic!("{faults:?}: {error}"));
    assert!(fs::read(&fetched.path).unwrap() == bytes, "{faults:?}");
    assert!(!fetched.was_cached);
    let requests = server.log().len();
    let again = fetch(&fetcher, "a/b.pt").unwrap();
    assert!(again.was_cached && again.path == fetched.path);
    assert_eq!(server.log().len(), requests, "{faults:?}: requested again");
    assert_clean(cache.path());
    server
}

/// Fetches with these faults and expects an error, then without faults and expects the right bytes.
fn refuses(faults: &[Fault]) -> HubError {
    let bytes = content(N);
    let server = Server::start(&[("b.pt", bytes.clone())]);
    server.gets(faults);
    let cache = tempfile::tempdir().unwrap();
    let fetcher = server.fetcher(cache.path());
    let error = fetch(&fetcher, "b.pt").expect_err(&format!("{faults:?}"));
    let snapshots = cache.path().join("models--owner--name/snapshots");
    assert!(
        !snapshots.exists(),
        "{faults:?}: a file exists under the final name"
    );
    let fetched =
        fetch(&fetcher, "b.pt").unwrap_or_else(|error| panic!("{faults:?}, then: {error}"));
    assert!(fs::read(&fetched.path).unwrap() == bytes, "{faults:?}");
    assert_clean(cache.path());
    error
}

/// No partial file remains.
fn assert_clean(cache: &Path) {
    for entry in fs::read_dir(cache.join("models--owner--name/blobs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert_eq!(name.len(), 64, "{name}");
    }
}

#[test]
fn the_cache_is_laid_out_as_the_official_client_does() {
    let bytes = content(1000);
    let server = Server::start(&[("a/b.pt", bytes.clone())]);
    let cache = tempfile::tempdir().unwrap();
    let path = fetch(&server.fetcher(cache.path()), "a/b.pt").unwrap().path;
    let repository = cache.path().join("models--owner--name");
    assert_eq!(
        path,
        repository.join("snapshots").join(COMMIT).join("a/b.pt")
    );
    let hash = sdft_files::sha256_bytes(&bytes);
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(&path).unwrap(),
        Path::new("../../../blobs").join(&hash)
    );
    assert!(repository.join("blobs").join(&hash).is_file());
    assert_eq!(
        fs::read_to_string(repository.join("refs/main")).unwrap(),
        COMMIT
    );
    let lock = format!(".locks/models--owner--name/{hash}.lock");
    assert!(cache.path().join(lock).is_file());
}

#[test]
fn broken_connections_are_resumed() {
    let half = N / 2;
    for faults in [
        vec![Fault::CutAfter(half)],
        vec![Fault::CutAfter(0), Fault::CutAfter(100)],
        vec![
            Fault::CutAfter(100_000),
            Fault::CutAfter(100_000),
            Fault::CutAfter(100_000),
        ],
        vec![Fault::Unannounced(half)],
        vec![Fault::Stall],
        vec![Fault::CutAfter(half), Fault::Page(500, "oh")],
        vec![
            Fault::CutAfter(half),
            Fault::Page(200, "<html>try later</html>"),
        ],
    ] {
        let server = survives(&faults);
        // Bytes that have arrived are not sent again; a cut connection may lose the bytes in transit.
        let again = server.sent().saturating_sub(N as u64);
        assert!(again <= (N as u64) / 20, "{faults:?}: {again} bytes twice");
    }
}

#[test]
fn a_server_without_ranges_works() {
    let server = survives(&[Fault::CutAfter(N / 2), Fault::NoRange]);
    assert_eq!(server.count("GET"), 2);
    // The response begins at another byte than requested.
    survives(&[Fault::CutAfter(N / 2), Fault::OtherRange]);
}

#[test]
fn pages_short_bodies_and_long_ones_are_not_taken_for_the_file() {
    for faults in [
        vec![Fault::Page(200, "<html>log in</html>")],
        vec![Fault::Short(N / 3)],
        vec![Fault::Long],
        vec![Fault::Wrong],
        vec![Fault::Busy(503, None), Fault::Busy(429, Some(1))],
        vec![Fault::Unannounced(10), Fault::Wrong],
    ] {
        survives(&faults);
    }
}

#[test]
fn retry_after_is_respected() {
    let start = Instant::now();
    survives(&[Fault::Busy(429, Some(1))]);
    assert!(start.elapsed().as_secs_f64() >= 1.0);
    let error = refuses(&[Fault::Busy(429, Some(3600))]);
    assert!(error.to_string().contains("asks to wait 3600 s"), "{error}");
}

#[test]
fn a_slow_server_does_not_time_out() {
    let bytes = content(2000);
    let server = Server::start(&[("b.pt", bytes.clone())]);
    server.gets(&[Fault::Trickle(100, 50)]);
    let cache = tempfile::tempdir().unwrap();
    // A second in total, without a long pause.
    let fetched = fetch(&server.fetcher(cache.path()), "b.pt").unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), bytes);
    assert_eq!(server.count("GET"), 1);
}

#[test]
fn permanent_faults_are_errors_and_leave_no_wrong_file() {
    let four = |fault: Fault| vec![fault; 4];
    for (faults, text) in [
        (
            four(Fault::Page(200, "<html></html>")),
            "an error page or another file",
        ),
        (vec![Fault::Page(403, "<html></html>")], "answered 403"),
        (vec![Fault::Page(401, "")], "HF_TOKEN"),
        (vec![Fault::Page(404, "")], "does not exist"),
        (
            vec![Fault::Wrong, Fault::Wrong],
            "two downloads had the wrong hash",
        ),
        (four(Fault::Short(7)), "offers 7 bytes"),
        (four(Fault::Busy(503, None)), "gave up after 4 attempts"),
        (four(Fault::CutAfter(10)), "gave up after 4 attempts"),
        (
            four(Fault::Stall)[..1]
                .to_vec()
                .into_iter()
                .chain(vec![Fault::Page(403, "")])
                .collect(),
            "403",
        ),
    ] {
        let error = refuses(&faults).to_string();
        assert!(error.contains(text), "{faults:?}: {error}");
    }
}

#[test]
fn a_wrong_or_too_long_partial_file_does_not_damage_the_file() {
    let bytes = content(N);
    for leftover in [
        vec![7; N / 2],
        vec![7; N],
        vec![7; N + 1],
        vec![7; 2 * N],
        bytes[..N / 2].to_vec(),
    ] {
        let server = Server::start(&[("b.pt", bytes.clone())]);
        let cache = tempfile::tempdir().unwrap();
        let blobs = cache.path().join("models--owner--name/blobs");
        fs::create_dir_all(&blobs).unwrap();
        let hash = sdft_files::sha256_bytes(&bytes);
        fs::write(blobs.join(format!("{hash}.incomplete")), &leftover).unwrap();
        let fetched = fetch(&server.fetcher(cache.path()), "b.pt").unwrap();
        assert!(fs::read(fetched.path).unwrap() == bytes);
        assert_clean(cache.path());
    }
}

#[test]
fn a_damaged_file_of_the_cache_is_fetched_again() {
    let bytes = content(1000);
    let server = Server::start(&[("b.pt", bytes.clone())]);
    let cache = tempfile::tempdir().unwrap();
    let fetcher = server.fetcher(cache.path());
    let path = fetch(&fetcher, "b.pt").unwrap().path;
    let mut damaged = bytes.clone();
    damaged[500] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let mut settings = quick(Settings::new(&server.address, cache.path()));
    settings.offline = true;
    let offline = Fetcher::new(settings).unwrap();
    let error = fetch(&offline, "b.pt").unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }), "{error}");
    let fetched = fetch(&fetcher, "b.pt").unwrap();
    assert!(!fetched.was_cached);
    assert_eq!(fs::read(&fetched.path).unwrap(), bytes);
    assert!(fetch(&offline, "b.pt").unwrap().was_cached);
}

#[test]
fn offline_nothing_is_requested() {
    let server = Server::start(&[("b.pt", content(10))]);
    let cache = tempfile::tempdir().unwrap();
    let mut settings = quick(Settings::new(&server.address, cache.path()));
    settings.offline = true;
    let error = fetch(&Fetcher::new(settings).unwrap(), "b.pt").unwrap_err();
    assert!(error.to_string().contains("network is disabled"), "{error}");
    assert_eq!(server.log().len(), 0);
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);

    let closed = quick(Settings::new("http://127.0.0.1:9", cache.path()));
    let error = fetch(&Fetcher::new(closed).unwrap(), "b.pt").unwrap_err();
    assert!(
        error.to_string().contains("127.0.0.1:9 cannot be reached"),
        "{error}"
    );
}

#[test]
fn two_at_once_fetch_once() {
    let bytes = content(N);
    let server = Arc::new(Server::start(&[("b.pt", bytes.clone())]));
    server.gets(&[Fault::Trickle(20_000, 20)]);
    let cache = tempfile::tempdir().unwrap();
    #[derive(Default)]
    struct Notes(Vec<String>);
    impl FetchProgress for Notes {
        fn note(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }
    let all: Vec<Vec<String>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut notes = Notes::default();
                    let fetched = server
                        .fetcher(cache.path())
                        .fetch(&wanted("b.pt"), &mut notes)
                        .unwrap();
                    assert!(fs::read(fetched.path).unwrap() == bytes);
                    notes.0
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    assert_eq!(server.count("GET"), 1);
    let waiting = all
        .iter()
        .flatten()
        .filter(|note| note.contains("waiting for another process"));
    assert_eq!(waiting.count(), 2);
}

#[test]
fn a_server_that_rejects_ranges_is_asked_for_the_whole_file() {
    let server = survives(&[Fault::CutAfter(N / 2), Fault::NoParts]);
    assert_eq!(server.count("GET"), 3);
    // A connection that breaks every time is given up, and the partial file is kept.
    let bytes = content(N);
    let server = Server::start(&[("b.pt", bytes)]);
    server.gets(&[Fault::CutAfter(N / 2), Fault::NoParts]);
    server.gets(&vec![Fault::CutAfter(N / 2); 40]);
    let cache = tempfile::tempdir().unwrap();
    let error = fetch(&server.fetcher(cache.path()), "b.pt").unwrap_err();
    assert!(
        matches!(error, HubError::GaveUp { have, .. } if have > 0),
        "{error}"
    );
    assert!(server.count("GET") < 20, "{}", server.count("GET"));
}

#[cfg(unix)]
#[test]
fn a_users_own_link_and_its_target_stay_until_a_verified_file_replaces_the_link() {
    let bytes = content(1000);
    let server = Server::start(&[("b.pt", bytes.clone())]);
    let root = tempfile::tempdir().unwrap();
    let cache = root.path().join("cache");
    let mine = root.path().join("mine.pt");
    fs::write(&mine, b"my own").unwrap();
    let snapshot = cache.join("models--owner--name/snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    std::os::unix::fs::symlink(&mine, snapshot.join("b.pt")).unwrap();
    let mut known = wanted("b.pt");
    at_revision(&mut known, COMMIT);
    known.sha256 = Some(sdft_files::sha256_bytes(&bytes));
    server.heads(&[Fault::Page(403, "")]);
    let fetcher = server.fetcher(&cache);
    fetcher.fetch(&known, &mut NoopFetchProgress).unwrap_err();
    assert_eq!(fs::read(snapshot.join("b.pt")).unwrap(), b"my own");
    let fetched = fetcher.fetch(&known, &mut NoopFetchProgress).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), bytes);
    assert_eq!(fs::read(&mine).unwrap(), b"my own");
}

#[test]
fn another_clients_file_is_not_deleted() {
    // Another client fetched it from a later commit of a branch: its hash matches its name, but not the manifest.
    let bytes = content(1000);
    let server = Server::start(&[("b.pt", bytes.clone())]);
    let cache = tempfile::tempdir().unwrap();
    let fetcher = server.fetcher(cache.path());
    let path = fetch(&fetcher, "b.pt").unwrap().path;
    let mut other = wanted("b.pt");
    other.sha256 = Some("ab".repeat(32));
    let error = fetcher.fetch(&other, &mut NoopFetchProgress).unwrap_err();
    assert!(matches!(error, HubError::UnexpectedFile { .. }), "{error}");
    assert_eq!(fs::read(path).unwrap(), bytes);
}
