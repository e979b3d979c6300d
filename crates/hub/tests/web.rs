//! Files of servers other than the Hub: no hash is stated, so length, version and the first download's hash must do.

mod common;

use std::{fs, path::Path, thread};

use common::{Fault, Server, content, quick};
use sdft_assets::{Remote, WebFile};
use sdft_hub::{Fetched, Fetcher, HubError, NoopFetchProgress, Settings, Wanted};

const N: usize = 400_000;
const FILE: &str = "a/b.pkl";

fn fetch(fetcher: &Fetcher, wanted: &Wanted) -> Result<Fetched, HubError> {
    fetcher.fetch(wanted, &mut NoopFetchProgress)
}

/// A server with one file, its content, and a cache.
fn place() -> (Server, Vec<u8>, tempfile::TempDir) {
    let bytes = content(N);
    let server = Server::start(&[(FILE, bytes.clone())]);
    (server, bytes, tempfile::tempdir().unwrap())
}

/// The folder of a server in the cache.
fn folder(server: &Server, cache: &Path) -> std::path::PathBuf {
    let host = server.address.strip_prefix("http://").unwrap();
    cache.join("web").join(host.replace(':', "-"))
}

/// The names of all blobs and partial files.
fn blobs(server: &Server, cache: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder(server, cache).join("blobs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn the_hash_of_the_first_download_is_recorded_and_compared() {
    let (server, bytes, cache) = place();
    let settings = quick(Settings::new(&server.address, cache.path())).with_token("secret");
    let fetcher = Fetcher::new(settings).unwrap();
    let wanted = server.plain(FILE);
    let fetched = fetch(&fetcher, &wanted).unwrap();
    let folder = folder(&server, cache.path());
    assert_eq!(fetched.path, folder.join("files").join(FILE));
    assert!(fs::read(&fetched.path).unwrap() == bytes);
    let hash = sdft_files::sha256_bytes(&bytes);
    assert_eq!(fetched.hash.as_deref(), Some(hash.as_str()));
    assert_eq!(blobs(&server, cache.path()), [hash.as_str()]);
    let log = server.log();
    assert!(log.iter().all(|request| request.token.is_none()), "{log:?}");
    // The server is not asked again.
    let again = fetch(&fetcher, &wanted).unwrap();
    assert!(again.was_cached && again.path == fetched.path);
    assert_eq!(again.hash, fetched.hash);
    assert_eq!(server.log().len(), log.len());
    // A damaged file is noticed, and replaced.
    let blob = folder.join("blobs").join(&hash);
    let mut damaged = bytes.clone();
    damaged[N / 2] ^= 1;
    fs::write(&blob, damaged).unwrap();
    let mut offline = quick(Settings::new(&server.address, cache.path()));
    offline.offline = true;
    let error = fetch(&Fetcher::new(offline).unwrap(), &wanted).unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }), "{error}");
    assert!(!fetch(&fetcher, &wanted).unwrap().was_cached);
    assert!(fs::read(&fetched.path).unwrap() == bytes);
}

#[test]
fn broken_connections_are_resumed() {
    for faults in [
        vec![Fault::CutAfter(N / 2)],
        vec![Fault::CutAfter(0), Fault::CutAfter(100)],
        vec![Fault::Stall],
        vec![Fault::CutAfter(N / 2), Fault::Page(500, "oh")],
        vec![Fault::CutAfter(N / 2), Fault::Busy(503, None)],
    ] {
        let (server, bytes, cache) = place();
        server.gets(&faults);
        let fetched = fetch(&server.fetcher(cache.path()), &server.plain(FILE)).unwrap();
        assert!(fs::read(fetched.path).unwrap() == bytes, "{faults:?}");
        let again = server.sent().saturating_sub(N as u64);
        assert!(again <= (N as u64) / 20, "{faults:?}: {again} bytes twice");
        assert_eq!(blobs(&server, cache.path()).len(), 1, "{faults:?}");
    }
}

#[test]
fn a_server_without_ranges_works() {
    for faults in [
        vec![Fault::CutAfter(N / 2), Fault::NoRange],
        vec![Fault::CutAfter(N / 2), Fault::NoParts],
        vec![Fault::CutAfter(N / 2), Fault::OtherRange],
        vec![Fault::Long],
        vec![Fault::Short(N / 3)],
        vec![Fault::Page(200, "<html>log in</html>")],
    ] {
        let (server, bytes, cache) = place();
        server.gets(&faults);
        let fetched = fetch(&server.fetcher(cache.path()), &server.plain(FILE)).unwrap();
        assert!(fs::read(fetched.path).unwrap() == bytes, "{faults:?}");
    }
}

#[test]
fn a_file_that_changes_is_downloaded_from_the_beginning() {
    let new: Vec<u8> = content(N + 7).into_iter().rev().collect();
    // Also by a server without ranges, or with ranges but without If-Range.
    for fault in [Fault::None, Fault::NoRange, Fault::NoVersions] {
        let (server, _, cache) = place();
        server.gets(&[Fault::Replace(new.clone()), fault.clone()]);
        let fetched = fetch(&server.fetcher(cache.path()), &server.plain(FILE)).unwrap();
        assert!(fs::read(&fetched.path).unwrap() == new, "{fault:?}");
        assert_eq!(blobs(&server, cache.path()).len(), 1);
    }
    // Between two calls.
    let (server, _, cache) = place();
    let cuts = vec![Fault::CutAfter(1000); 10];
    server.gets(&[Fault::CutAfter(N / 2)]).gets(&cuts);
    let error = fetch(&server.fetcher(cache.path()), &server.plain(FILE)).unwrap_err();
    assert!(matches!(error, HubError::GaveUp { .. }), "{error}");
    assert!(blobs(&server, cache.path())[0].ends_with(".incomplete"));
    server.replace(FILE, &new).recover();
    let fetched = fetch(&server.fetcher(cache.path()), &server.plain(FILE)).unwrap();
    assert!(fs::read(&fetched.path).unwrap() == new);
    assert_eq!(blobs(&server, cache.path()).len(), 1);
}

#[test]
fn without_a_version_nothing_is_resumed() {
    let (server, bytes, cache) = place();
    server.without(&["ETag"]).gets(&[Fault::CutAfter(N / 2)]);
    let fetched = fetch(&server.fetcher(cache.path()), &server.plain(FILE)).unwrap();
    assert!(fs::read(fetched.path).unwrap() == bytes);
    assert!(server.log().iter().all(|request| request.from.is_none()));
    // With a hash from the manifest the bytes that have arrived are of use.
    let (server, bytes, cache) = place();
    server.without(&["ETag"]).gets(&[Fault::CutAfter(N / 2)]);
    let mut wanted = server.plain(FILE);
    wanted.sha256 = Some(sdft_files::sha256_bytes(&bytes));
    let fetched = fetch(&server.fetcher(cache.path()), &wanted).unwrap();
    assert!(fs::read(fetched.path).unwrap() == bytes);
    assert!(server.log().iter().any(|request| request.from.is_some()));
}

#[test]
fn only_redirects_to_the_same_server_are_followed() {
    let (server, bytes, cache) = place();
    server.replace("moved.pkl", b"");
    let to = [Fault::To(format!("/{FILE}"))];
    server.heads(&to).gets(&to);
    let fetched = fetch(&server.fetcher(cache.path()), &server.plain("moved.pkl")).unwrap();
    assert!(fs::read(fetched.path).unwrap() == bytes);

    let other = Server::start(&[(FILE, bytes)]);
    let address = format!("{}/{FILE}", other.address);
    for head in [true, false] {
        let (server, _, cache) = place();
        let to = [Fault::To(address.clone())];
        match head {
            true => server.heads(&to),
            false => server.gets(&to),
        };
        let error = fetch(&server.fetcher(cache.path()), &server.plain(FILE)).unwrap_err();
        assert!(error.to_string().contains("another server"), "{error}");
        let endless = vec![Fault::To(format!("/{FILE}")); 20];
        server.heads(&endless);
        let error = fetch(&server.fetcher(cache.path()), &server.plain(FILE)).unwrap_err();
        assert!(error.to_string().contains("too many redirects"), "{error}");
    }
    assert!(other.log().is_empty());
}

#[test]
fn other_files_than_the_manifests_are_refused() {
    let (server, bytes, cache) = place();
    let fetcher = server.fetcher(cache.path());
    let mut wanted = server.plain(FILE);
    wanted.size = Some(N as u64 - 1);
    let error = fetch(&fetcher, &wanted).unwrap_err();
    assert!(matches!(error, HubError::UnexpectedFile { .. }), "{error}");
    assert_eq!(server.count("GET"), 0);
    wanted.size = Some(N as u64);
    wanted.sha256 = Some("0".repeat(64));
    let error = fetch(&fetcher, &wanted).unwrap_err();
    assert!(matches!(error, HubError::HashMismatch { .. }), "{error}");
    assert!(blobs(&server, cache.path()).is_empty());
    wanted.sha256 = Some(sdft_files::sha256_bytes(&bytes));
    server.gets(&[Fault::Wrong]);
    assert!(fs::read(fetch(&fetcher, &wanted).unwrap().path).unwrap() == bytes);
}

#[test]
fn responses_that_cannot_be_verified_are_refused() {
    let (server, _, cache) = place();
    let fetcher = server.fetcher(cache.path());
    let refuses = |wanted: &Wanted, words: &str| {
        let error = fetch(&fetcher, wanted).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    };
    server.heads(&[Fault::Html]);
    refuses(&server.plain(FILE), "found a web page");
    refuses(
        &server.plain("gone.pkl"),
        "answered 404: the file does not exist",
    );
    server.heads(&[Fault::Page(403, "no")]);
    refuses(&server.plain(FILE), "answered 403: access denied");
    server.without(&["Content-Length"]);
    refuses(&server.plain(FILE), "states no length");
    let web = |url: &str| Remote::Web(WebFile { url: url.into() }).into();
    refuses(
        &web("http://example.com/a.pkl"),
        "expected https://HOST/PATH",
    );
    refuses(
        &web(&format!("{}/../a.pkl", server.address)),
        "expected https",
    );
    assert_eq!(server.count("GET"), 0);
    assert!(!folder(&server, cache.path()).join("files").exists());
}

#[test]
fn calls_for_the_same_file_share_one_transfer() {
    let (server, bytes, cache) = place();
    server.gets(&[Fault::Trickle(20_000, 5)]);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let fetched = fetch(&server.fetcher(cache.path()), &server.plain(FILE)).unwrap();
                assert!(fs::read(fetched.path).unwrap() == bytes);
            });
        }
    });
    assert_eq!(server.count("GET"), 1);
}
