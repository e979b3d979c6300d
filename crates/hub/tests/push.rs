//! Publishing a model: which files arrive, and what is reported when they do not.

mod common;

use std::fs;

use common::{
    Server, quick,
    receive::Refusal,
    runs::{TOKEN, publication, push, run_in, settings},
};
use sdft_hub::{FetchProgress, NoopFetchProgress, Publication, Settings, Target};

#[test]
fn the_listed_files_arrive_with_their_content_and_no_others() {
    let home = tempfile::tempdir().unwrap();
    let run = run_in(home.path());
    let server = Server::start(&[]);
    let publication = publication(&run);
    let address = publication
        .upload(
            &settings(&server, home.path()),
            false,
            &mut NoopFetchProgress,
        )
        .unwrap();
    assert_eq!(address, format!("{}/ann/cats", server.address));
    let received = server.received();
    assert!(received.exists && !received.is_private);
    let [(branch, files)] = &received.commits[..] else {
        panic!("{} commits", received.commits.len());
    };
    assert_eq!(branch, "main");
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "README.md",
            "final.safetensors",
            "plan.toml",
            "samples/step-000020.png"
        ]
    );
    let mut listed: Vec<&str> = publication
        .files()
        .iter()
        .map(|file| file.path.as_str())
        .collect();
    listed.sort_unstable();
    assert_eq!(names, listed);
    for name in ["final.safetensors", "samples/step-000020.png"] {
        assert!(files[name] == fs::read(run.join(name)).unwrap(), "{name}");
    }
    for file in publication.files() {
        assert_eq!(files[&file.path].len() as u64, file.size, "{}", file.path);
    }
    let home = home.path().display().to_string();
    for name in ["README.md", "plan.toml"] {
        let text = std::str::from_utf8(&files[name]).unwrap();
        assert!(text.contains("photos") && !text.contains(&home), "{text}");
    }
    // Every request of the client has the token; the folder is unchanged.
    assert!(
        server
            .log()
            .iter()
            .all(|request| request.token.as_deref() == Some("Bearer hf_secret"))
    );
    assert!(!run.join("README.md").exists());
}

#[test]
fn large_files_go_to_the_storage_of_large_files() {
    let home = tempfile::tempdir().unwrap();
    let run = run_in(home.path());
    let server = Server::start(&[]);
    server.received().large = Some(100_000);
    let (code, out, err) = push(
        &server,
        home.path(),
        &["cats-sdft", "ann/cats", "--yes", "--private"],
    );
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.ends_with(&format!("{}/ann/cats\n", server.address)),
        "{out}"
    );
    let received = server.received();
    assert!(received.is_private);
    let weights = fs::read(run.join("final.safetensors")).unwrap();
    let pointer = format!(
        "sha256:{} {}",
        sdft_files::sha256_bytes(&weights),
        weights.len()
    );
    let (_, files) = &received.commits[0];
    assert_eq!(files["final.safetensors"], pointer.as_bytes());
    assert!(files["samples/step-000020.png"] == b"samples/step-000020.png");
    // Content without repetition is stored as it is, in pieces.
    let stored = received.blocks.concat();
    let has = |piece: &[u8]| stored.windows(piece.len()).any(|window| window == piece);
    for at in (0..weights.len()).step_by(10_000) {
        assert!(
            has(&weights[at..at + 64]) || has(&weights[at + 64..at + 128]),
            "{at}"
        );
    }
    assert!(!err.contains(TOKEN) && !out.contains(TOKEN));
}

#[test]
fn refusals_name_what_is_wrong_with_the_token_and_hide_it() {
    let home = tempfile::tempdir().unwrap();
    let publication = publication(&run_in(home.path()));
    for (part, refusal, texts) in [
        (
            "/api/models/",
            Refusal::Status(401, "hf_secret is invalid"),
            [
                "answered 401: the token was rejected",
                "(... is invalid)",
                "nothing was published",
            ],
        ),
        (
            "/repos/create",
            Refusal::Status(403, "no"),
            [
                "answered 403",
                "write access to the repositories of ann",
                "nothing was published",
            ],
        ),
        (
            "/preupload/",
            Refusal::Status(403, "no"),
            ["answered 403", "(no)", "none of the files was published"],
        ),
        (
            "/commit/",
            Refusal::Status(409, "moved"),
            [
                "changed at the same time",
                "(moved)",
                "none of the files was published",
            ],
        ),
        (
            "/commit/",
            Refusal::Status(400, "bad card"),
            [
                "answered 400",
                "(bad card)",
                "none of the files was published",
            ],
        ),
    ] {
        let server = Server::start(&[]);
        server.received().refusals.push_back((part, refusal));
        let error = publication
            .upload(
                &settings(&server, home.path()),
                false,
                &mut NoopFetchProgress,
            )
            .unwrap_err()
            .to_string();
        for text in texts {
            assert!(error.contains(text), "{text}: {error}");
        }
        assert!(
            error.starts_with(&format!("ann/cats: {}: ", server.address)),
            "{error}"
        );
        assert!(!error.contains(TOKEN), "{error}");
        assert!(server.received().commits.is_empty());
    }
}

#[test]
fn after_a_network_failure_the_message_says_what_was_published_and_repeating_works() {
    let home = tempfile::tempdir().unwrap();
    let publication = publication(&run_in(home.path()));
    // Fewer failures than attempts are not noticed.
    let server = Server::start(&[]);
    let settings_here = settings(&server, home.path());
    let upload = || publication.upload(&settings_here, false, &mut NoopFetchProgress);
    for part in ["/repos/create", "/preupload/", "/commit/"] {
        server.received().refusals.push_back((part, Refusal::Cut));
    }
    upload().unwrap();
    assert_eq!(server.received().commits.len(), 1);

    for (part, refusal, state) in [
        (
            "/preupload/",
            Refusal::Cut,
            "none of the files was published",
        ),
        (
            "/preupload/",
            Refusal::Status(503, ""),
            "none of the files was published",
        ),
        (
            "/commit/",
            Refusal::Cut,
            "the answer was lost, so they may be published",
        ),
        (
            "/commit/",
            Refusal::CutAfter,
            "the answer was lost, so they may be published",
        ),
    ] {
        let before = server.received().commits.len();
        let all = std::iter::repeat_n((part, refusal.clone()), 4);
        server.received().refusals.extend(all);
        let error = upload().unwrap_err().to_string();
        assert!(error.contains(state), "{part} {refusal:?}: {error}");
        assert!(server.received().refusals.is_empty(), "4 attempts");
        let after = server.received().commits.len();
        assert_eq!(after > before, matches!(refusal, Refusal::CutAfter));
        upload().unwrap();
        let received = server.received();
        assert_eq!(received.commits.len(), after + 1);
        assert!(received.commits[0] == received.commits[after]);
    }

    let nowhere = quick(Settings::new("http://127.0.0.1:9", home.path())).with_token(TOKEN);
    let error = publication
        .upload(&nowhere, false, &mut NoopFetchProgress)
        .unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("no answer") && error.contains("nothing was published"),
        "{error}"
    );
}

#[test]
fn an_existing_repository_keeps_its_visibility_and_a_new_branch_is_made() {
    #[derive(Default)]
    struct Notes(Vec<String>);
    impl FetchProgress for Notes {
        fn note(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }
    let home = tempfile::tempdir().unwrap();
    let run = run_in(home.path());
    let server = Server::start(&[]);
    server.received().exists = true;
    let target = Target::parse("ann/cats", Some("test/two")).unwrap();
    let publication = Publication::of(&run, target, &[]).unwrap();
    let mut notes = Notes::default();
    for _ in 0..2 {
        let address = publication
            .upload(&settings(&server, home.path()), true, &mut notes)
            .unwrap();
        assert!(address.ends_with("/ann/cats/tree/test/two"), "{address}");
    }
    assert!(
        notes.0[0].contains("--private is for a new one"),
        "{:?}",
        notes.0
    );
    let received = server.received();
    let posted = |part: &str| {
        received
            .requests
            .iter()
            .filter(|(method, path)| method == "POST" && path.contains(part))
            .count()
    };
    assert_eq!((posted("/repos/create"), posted("/branch/")), (0, 1));
    assert!(
        received
            .commits
            .iter()
            .all(|(branch, _)| branch == "test/two")
    );
    assert!(!received.is_private);
}
