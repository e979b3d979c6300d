//! What the server says of a file, and what is made of it.

mod common;

use std::fs;

use common::{COMMIT, Fault, Server, content, quick, wanted};
use sdft_assets::HubFile;
use sdft_hub::{Fetcher, HubError, Quiet, Settings, Wanted};

fn error_of(server: &Server, wanted: &Wanted) -> HubError {
    let cache = tempfile::tempdir().unwrap();
    let error = server
        .fetcher(cache.path())
        .fetch(wanted, &mut Quiet)
        .unwrap_err();
    assert_eq!(server.count("GET"), 0, "{error}");
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0, "{error}");
    error
}

/// A folder of the server.
fn folder(place: &str) -> HubFile {
    let mut folder = HubFile::parse(place).unwrap().unwrap();
    folder.path.push('/');
    folder
}

#[test]
fn missing_headers_are_named_unless_the_list_knows_what_they_say() {
    for (headers, text) in [
        (vec!["X-Repo-Commit"], "no X-Repo-Commit"),
        (vec!["X-Linked-Etag", "ETag"], "no ETag"),
    ] {
        let server = Server::start(&[("b.pt", content(100))]);
        server.without(&headers);
        let error = error_of(&server, &wanted("b.pt")).to_string();
        assert!(error.contains(text), "{error}");
    }
    // No length: the hash decides.
    let server = Server::start(&[("b.pt", content(100))]);
    server.without(&["X-Linked-Size", "Content-Length"]);
    let cache = tempfile::tempdir().unwrap();
    server
        .fetcher(cache.path())
        .fetch(&wanted("b.pt"), &mut Quiet)
        .unwrap();

    let bytes = content(100);
    let server = Server::start(&[("b.pt", bytes.clone())]);
    server.without(&["X-Repo-Commit", "X-Linked-Etag", "ETag", "X-Linked-Size"]);
    let mut known = wanted("b.pt");
    known.file.revision = COMMIT.to_owned();
    known.sha256 = Some(sdft_files::sha256_bytes(&bytes));
    let cache = tempfile::tempdir().unwrap();
    let path = server
        .fetcher(cache.path())
        .fetch(&known, &mut Quiet)
        .unwrap()
        .path;
    assert_eq!(fs::read(path).unwrap(), bytes);
}

#[test]
fn an_etag_that_proves_nothing_is_refused() {
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
    let fetched = fetcher.fetch(&wanted("x.json"), &mut Quiet).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), b"hello\n");
    assert_eq!(server.count("GET"), 2);
}

#[test]
fn another_file_than_the_list_knows_is_not_downloaded() {
    let server = Server::start(&[("b.pt", content(100))]);
    let mut other = wanted("b.pt");
    other.sha256 = Some("ab".repeat(32));
    assert!(matches!(error_of(&server, &other), HubError::Other { .. }));
    let mut longer = wanted("b.pt");
    longer.size = Some(101);
    let error = error_of(&server, &longer).to_string();
    assert!(
        error.contains("100 bytes") && error.contains("101 bytes"),
        "{error}"
    );
    let mut elsewhere = wanted("b.pt");
    elsewhere.file.revision = "f".repeat(40);
    assert!(matches!(
        error_of(&server, &elsewhere),
        HubError::Other { .. }
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
    let first = fetcher.fetch(&wanted("b.pt"), &mut Quiet).unwrap();
    let again = fetcher.fetch(&wanted("b.pt"), &mut Quiet).unwrap();
    assert_eq!(first.path, again.path);
    assert_eq!(server.count("HEAD"), 1);
    // Another file is asked for at that commit, so that both stay findable.
    let second = fetcher.fetch(&wanted("c.pt"), &mut Quiet).unwrap();
    assert!(
        server
            .log()
            .iter()
            .any(|r| r.method == "HEAD" && r.path.ends_with(&format!("/{COMMIT}/c.pt")))
    );
    let both = [first.path.parent(), second.path.parent()];
    assert_eq!(both[0], both[1]);
    // A file that was not there yet is taken from the branch as it is.
    server
        .commit(&"f".repeat(40))
        .heads(&[Fault::Page(404, "")]);
    let third = fetcher.fetch(&wanted("d.pt"), &mut Quiet).unwrap();
    assert!(third.path.to_string_lossy().contains(&"f".repeat(40)));
}

#[test]
fn a_listing_that_leads_out_of_the_cache_is_refused() {
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
    let error = fetcher.fetch(&folder.into(), &mut Quiet).unwrap_err();
    assert!(error.to_string().contains("victim.txt"), "{error}");
    assert_eq!(server.count("HEAD"), 0);
}

#[test]
fn a_list_that_never_comes_is_not_waited_for() {
    let server = Server::start(&[("a.bin", content(10))]);
    server.silent();
    let cache = tempfile::tempdir().unwrap();
    let start = std::time::Instant::now();
    let error = server
        .fetcher(cache.path())
        .fetch(&wanted("typo.bin"), &mut Quiet)
        .unwrap_err();
    assert!(error.to_string().contains("no such file"), "{error}");
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
        .fetch(&wanted("b.pt"), &mut Quiet)
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
    // Another host by its name.
    let elsewhere = store.address.replace("127.0.0.1", "localhost");
    let place = format!("{elsewhere}/owner/name/resolve/main/b.pt?signature=hidden");
    hub.heads(&[
        Fault::To("/owner/renamed/resolve/main/b.pt".to_owned()),
        Fault::To(place.clone()),
    ]);
    hub.gets(&[Fault::To(place)]);
    let cache = tempfile::tempdir().unwrap();
    let settings = quick(Settings::new(&hub.address, cache.path())).with_token("hf_secret");
    let path = Fetcher::new(settings)
        .unwrap()
        .fetch(&wanted("b.pt"), &mut Quiet)
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
    assert!(error.contains("redirections without end"), "{error}");
}

#[test]
fn no_message_holds_a_token() {
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
            .fetch(&wanted("b.pt"), &mut Quiet)
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
        .fetch(&wanted("b.pt"), &mut Quiet)
        .unwrap_err();
    assert!(!error.to_string().contains("word"), "{error}");
}

#[test]
fn a_slip_in_the_path_is_answered_with_the_nearest_file() {
    let server = Server::start(&[
        ("a/model.safetensors", content(10)),
        ("b/other.bin", content(10)),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let error = server
        .fetcher(cache.path())
        .fetch(&wanted("a/model.safetensor"), &mut Quiet)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the nearest of 2 files is a/model.safetensors"),
        "{error}"
    );
}

#[test]
fn a_folder_is_what_lies_below_it() {
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
