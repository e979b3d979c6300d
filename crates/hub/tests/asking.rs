//! The metadata of a file: what is accepted, refused and followed.

mod common;

use std::fs;

use common::{COMMIT, Fault, Server, at_revision, content, quick, wanted};
use sdft_assets::HubFile;
use sdft_hub::{Fetcher, HubError, NoopFetchProgress, Settings, Wanted};

fn error_of(server: &Server, wanted: &Wanted) -> HubError {
    let cache = tempfile::tempdir().unwrap();
    let error = server
        .fetcher(cache.path())
        .fetch(wanted, &mut NoopFetchProgress)
        .unwrap_err();
    assert_eq!(server.count("GET"), 0, "{error}");
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0, "{error}");
    error
}

/// A folder on the server.
fn folder(path: &str) -> HubFile {
    let mut folder = HubFile::parse(path).unwrap().unwrap();
    folder.path.push('/');
    folder
}

#[test]
fn missing_headers_are_named_unless_the_manifest_has_their_values() {
    for (headers, text) in [
        (vec!["X-Repo-Commit"], "no X-Repo-Commit"),
        (vec!["X-Linked-Etag", "ETag"], "no ETag"),
    ] {
        let server = Server::start(&[("b.pt", content(100))]);
        server.without(&headers);
        let error = error_of(&server, &wanted("b.pt")).to_string();
        assert!(error.contains(text), "{error}");
    }
    // Without a length, the hash decides.
    let server = Server::start(&[("b.pt", content(100))]);
    server.without(&["X-Linked-Size", "Content-Length"]);
    let cache = tempfile::tempdir().unwrap();
    server
        .fetcher(cache.path())
        .fetch(&wanted("b.pt"), &mut NoopFetchProgress)
        .unwrap();

    let bytes = content(100);
    let server = Server::start(&[("b.pt", bytes.clone())]);
    server.without(&["X-Repo-Commit", "X-Linked-Etag", "ETag", "X-Linked-Size"]);
    let mut known = wanted("b.pt");
    at_revision(&mut known, COMMIT);
    known.sha256 = Some(sdft_files::sha256_bytes(&bytes));
    let cache = tempfile::tempdir().unwrap();
    let path = server
        .fetcher(cache.path())
        .fetch(&known, &mut NoopFetchProgress)
        .unwrap()
        .path;
    assert_eq!(fs::read(path).unwrap(), bytes);
}

#[test]
fn an_etag_that_is_not_a_hash_is_refused() {
    let server = Server::start(&[("b.pt", content(100))]);
    server.etag("5f3c-abc");
    let error = error_of(&server, &wanted("b.pt")).to_string();
    assert!(
        error.contains("5f3c-abc") && error.contains("verified"),
        "{error}"
    );
}

#[test]
fn small_files_are_verified_by_gits_hash() {
    // `printf 'hello\n' | git hash-object --stdin`
    let server = Server::start(&[("x.json", b"hello\n".to_vec())]);
    server.etag("ce013625030ba8dba906f756967f9e9ca394464a");
    let cache = tempfile::tempdir().unwrap();
    let fetcher = server.fetcher(cache.path());
    server.gets(&[Fault::Wrong]);
    let fetched = fetcher
        .fetch(&wanted("x.json"), &mut NoopFetchProgress)
        .unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), b"hello\n");
    assert_eq!(server.count("GET"), 2);
}

#[test]
fn a_file_that_differs_from_the_manifest_is_not_downloaded() {
    let server = Server::start(&[("b.pt", content(100))]);
    let mut other = wanted("b.pt");
    other.sha256 = Some("ab".repeat(32));
    assert!(matches!(
        error_of(&server, &other),
        HubError::UnexpectedFile { .. }
    ));
    let mut longer = wanted("b.pt");
    longer.size = Some(101);
    let error = error_of(&server, &longer).to_string();
    assert!(
        error.contains("100 bytes") && error.contains("101 bytes"),
        "{error}"
    );
    let mut elsewhere = wanted("b.pt");
    at_revision(&mut elsewhere, &"f".repeat(40));
    assert!(matches!(
        error_of(&server, &elsewhere),
        HubError::UnexpectedFile { .. }
    ));
}

#[test]
fn a_branch_stays_at_the_commit_it_was_first_fetched_from() {
    let server = Server::start(&[
        ("b.pt", content(100)),
        ("c.pt", content(50)),
        ("d.pt", content(20)),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let fetcher = server.fetcher(cache.path());
    let first = fetcher
        .fetch(&wanted("b.pt"), &mut NoopFetchProgress)
        .unwrap();
    let again = fetcher
        .fetch(&wanted("b.pt"), &mut NoopFetchProgress)
        .unwrap();
    assert_eq!(first.path, again.path);
    assert_eq!(server.count("HEAD"), 1);
    // Another file is requested at that commit, so that both can be found later.
    let second = fetcher
        .fetch(&wanted("c.pt"), &mut NoopFetchProgress)
        .unwrap();
    assert!(
        server
            .log()
            .iter()
            .any(|r| r.method == "HEAD" && r.path.ends_with(&format!("/{COMMIT}/c.pt")))
    );
    let both = [first.path.parent(), second.path.parent()];
    assert_eq!(both[0], both[1]);
    // A file that did not exist at that commit comes from the branch's current commit.
    server
        .commit(&"f".repeat(40))
        .heads(&[Fault::Page(404, "")]);
    let third = fetcher
        .fetch(&wanted("d.pt"), &mut NoopFetchProgress)
        .unwrap();
    assert!(third.path.to_string_lossy().contains(&"f".repeat(40)));
}

#[test]
fn a_listed_path_outside_the_cache_is_refused() {
    let server = Server::start(&[
        ("d/../../../../victim.txt", content(10)),
        ("d/ok.bin", content(10)),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let mut folder = folder("hf:owner/name/d");
    let fetcher = server.fetcher(cache.path());
    let error = fetcher.files_below(&folder).unwrap_err();
    assert!(error.to_string().contains("victim.txt"), "{error}");
    folder.path = "d/../../../../victim.txt".to_owned();
    let error = fetcher
        .fetch(&folder.into(), &mut NoopFetchProgress)
        .unwrap_err();
    assert!(error.to_string().contains("victim.txt"), "{error}");
    assert_eq!(server.count("HEAD"), 0);
}

#[test]
fn a_listing_without_a_response_times_out() {
    let server = Server::start(&[("a.bin", content(10))]);
    server.silent();
    let cache = tempfile::tempdir().unwrap();
    let start = std::time::Instant::now();
    let error = server
        .fetcher(cache.path())
        .fetch(&wanted("typo.bin"), &mut NoopFetchProgress)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not exist at this revision"),
        "{error}"
    );
    let folder = folder("hf:owner/name/d");
    let error = server
        .fetcher(cache.path())
        .files_below(&folder)
        .unwrap_err();
    assert!(error.to_string().contains("owner/name"), "{error}");
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn another_port_gets_no_token() {
    let bytes = content(100);
    let other = Server::start(&[("b.pt", bytes.clone())]);
    let hub = Server::start(&[("b.pt", bytes.clone())]);
    hub.without(&["X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size", "ETag"]);
    hub.heads(&[Fault::To(format!(
        "{}/owner/name/resolve/main/b.pt",
        other.address
    ))]);
    let cache = tempfile::tempdir().unwrap();
    let settings = quick(Settings::new(&hub.address, cache.path())).with_token("hf_secret");
    let path = Fetcher::new(settings)
        .unwrap()
        .fetch(&wanted("b.pt"), &mut NoopFetchProgress)
        .unwrap()
        .path;
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert_eq!(other.count("HEAD"), 1);
    assert!(other.log().iter().all(|request| request.token.is_none()));
}

#[test]
fn redirections_are_followed_and_tokens_stay_where_they_belong() {
    let bytes = content(5000);
    let store = Server::start(&[("b.pt", bytes.clone())]);
    let hub = Server::start(&[("b.pt", bytes.clone())]);
    // The same server under another host name.
    let elsewhere = store.address.replace("127.0.0.1", "localhost");
    let address = format!("{elsewhere}/owner/name/resolve/main/b.pt?signature=hidden");
    hub.heads(&[
        Fault::To("/owner/renamed/resolve/main/b.pt".to_owned()),
        Fault::To(address.clone()),
    ]);
    hub.gets(&[Fault::To(address)]);
    let cache = tempfile::tempdir().unwrap();
    let settings = quick(Settings::new(&hub.address, cache.path())).with_token("hf_secret");
    let path = Fetcher::new(settings)
        .unwrap()
        .fetch(&wanted("b.pt"), &mut NoopFetchProgress)
        .unwrap()
        .path;
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert!(
        hub.log()
            .iter()
            .all(|request| request.token.as_deref() == Some("Bearer hf_secret"))
    );
    assert_eq!(store.count("GET"), 1);
    assert_eq!(store.count("HEAD"), 0);
    assert!(store.log().iter().all(|request| request.token.is_none()));
}

#[test]
fn endless_redirections_end() {
    let server = Server::start(&[("b.pt", content(10))]);
    server.heads(&vec![
        Fault::To("/owner/name/resolve/main/b.pt".to_owned());
        20
    ]);
    let error = error_of(&server, &wanted("b.pt")).to_string();
    assert!(error.contains("too many redirects"), "{error}");
}

#[test]
fn no_message_contains_a_token() {
    for (fault, has_token) in [
        (Fault::Page(401, "hf_secret"), true),
        (Fault::Page(403, ""), true),
        (Fault::Page(500, ""), true),
        (Fault::Page(404, ""), false),
    ] {
        let server = Server::start(&[("b.pt", content(10))]);
        server.heads(&vec![fault; 4]);
        let cache = tempfile::tempdir().unwrap();
        let settings = quick(Settings::new(&server.address, cache.path()));
        let settings = if has_token {
            settings.with_token("hf_secret")
        } else {
            settings
        };
        assert!(!format!("{settings:?}").contains("hf_secret"));
        let error = Fetcher::new(settings)
            .unwrap()
            .fetch(&wanted("b.pt"), &mut NoopFetchProgress)
            .unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("hf_secret"),
            "{error:?}"
        );
    }
    let cache = tempfile::tempdir().unwrap();
    let settings = quick(Settings::new("http://user:word@127.0.0.1:9", cache.path()));
    let error = Fetcher::new(settings)
        .unwrap()
        .fetch(&wanted("b.pt"), &mut NoopFetchProgress)
        .unwrap_err();
    assert!(!error.to_string().contains("word"), "{error}");
}

#[test]
fn a_misspelt_path_is_answered_with_the_nearest_file() {
    let server = Server::start(&[
        ("a/model.safetensors", content(10)),
        ("b/other.bin", content(10)),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let error = server
        .fetcher(cache.path())
        .fetch(&wanted("a/model.safetensor"), &mut NoopFetchProgress)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the nearest of 2 files is a/model.safetensors"),
        "{error}"
    );
}

#[test]
fn a_folder_includes_its_subfolders() {
    let server = Server::start(&[
        ("a/1.bin", content(10)),
        ("a/b/2.bin", content(10)),
        ("ab.bin", content(10)),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let mut folder = HubFile::parse("hf:datasets/owner/name/a").unwrap().unwrap();
    folder.path.push('/');
    let mut paths: Vec<String> = server
        .fetcher(cache.path())
        .files_below(&folder)
        .unwrap()
        .into_iter()
        .map(|file| file.path)
        .collect();
    paths.sort();
    assert_eq!(paths, ["a/1.bin", "a/b/2.bin"]);
}
