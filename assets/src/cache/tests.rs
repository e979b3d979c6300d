//! Tests of the cache.

use super::*;
use std::fs;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn sample(repo_type: RepoType, revision: &str, files: &[(&str, Option<u64>)]) -> Asset {
    let file = |&(path, size): &(&str, Option<u64>)| AssetFile {
        about: None,
        path: path.to_owned(),
        size,
        sha256: None,
    };
    Asset {
        confidence: crate::Confidence::Seen,
        goals: Vec::new(),
        pair: false,
        name: "sample".to_owned(),
        what: "a sample".to_owned(),
        place: Place::Hub {
            repo_type,
            repo: "some-one/some.thing".to_owned(),
            revision: revision.to_owned(),
        },
        files: files.iter().map(file).collect(),
        licence: "none".to_owned(),
        note: None,
    }
}

/// Puts a file into a cache, with the folders above it.
fn put(root: &Path, path: &str, content: &str) -> PathBuf {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

fn root_of(variables: &[(&str, &str)]) -> Result<PathBuf> {
    let get = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| OsString::from(value))
    };
    HubCache::from_variables(get).map(|cache| cache.root().to_owned())
}

#[test]
fn the_environment_is_read_in_the_clients_order() {
    let all = [
        ("HF_HUB_CACHE", "/a"),
        ("HUGGINGFACE_HUB_CACHE", "/b"),
        ("HF_HOME", "/c"),
        ("XDG_CACHE_HOME", "/d"),
        ("HOME", "/e"),
    ];
    let expected = [
        "/a",
        "/b",
        "/c/hub",
        "/d/huggingface/hub",
        "/e/.cache/huggingface/hub",
    ];
    for (first, expected) in expected.iter().enumerate() {
        assert_eq!(root_of(&all[first..]).unwrap(), Path::new(expected));
    }
    let error = root_of(&[]).unwrap_err();
    assert!(matches!(error, Error::NoHome));
    assert!(error.to_string().contains("HF_HUB_CACHE"));
}

#[test]
fn empty_variables_do_not_count_and_the_home_folder_is_filled_in() {
    let root = |variables: &[(&str, &str)]| root_of(variables).unwrap();
    let home = ("HOME", "/e");
    assert_eq!(
        root(&[("HF_HUB_CACHE", ""), ("HF_HOME", "/c")]),
        Path::new("/c/hub")
    );
    assert_eq!(root(&[("HF_HUB_CACHE", "~/x"), home]), Path::new("/e/x"));
    assert_eq!(root(&[("HF_HOME", "~"), home]), Path::new("/e/hub"));
    assert_eq!(root(&[("HF_HUB_CACHE", "~/x")]), Path::new("~/x"));
    let windows = root(&[("USERPROFILE", "/u")]);
    assert_eq!(windows, Path::new("/u/.cache/huggingface/hub"));
}

#[test]
fn a_commit_is_found_without_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let cache = HubCache::at(dir.path());
    let asset = sample(RepoType::Model, COMMIT, &[("a/b.bin", None)]);
    assert_eq!(cache.find(&asset, &asset.files[0]), None);
    let path = format!("models--some-one--some.thing/snapshots/{COMMIT}/a/b.bin");
    let path = put(dir.path(), &path, "x");
    assert_eq!(cache.find(&asset, &asset.files[0]), Some(path));
    // The same repository as a data set is another one.
    let asset = sample(RepoType::Dataset, COMMIT, &[("a/b.bin", None)]);
    assert_eq!(cache.find(&asset, &asset.files[0]), None);
}

#[test]
fn branches_and_pull_requests_are_found_through_their_note() {
    let dir = tempfile::tempdir().unwrap();
    let cache = HubCache::at(dir.path());
    let repository = "datasets--some-one--some.thing";
    let snapshot = format!("{repository}/snapshots/{COMMIT}/data.parquet");
    let path = put(dir.path(), &snapshot, "x");
    for (revision, note) in [("main", "refs/main"), ("refs/pr/4", "refs/refs/pr/4")] {
        let asset = sample(RepoType::Dataset, revision, &[("data.parquet", Some(1))]);
        assert_eq!(cache.find(&asset, &asset.files[0]), None, "{revision}");
        put(
            dir.path(),
            &format!("{repository}/{note}"),
            &format!("{COMMIT}\n"),
        );
        assert_eq!(cache.find(&asset, &asset.files[0]), Some(path.clone()));
        assert_eq!(cache.locate_asset(&asset).unwrap(), vec![path.clone()]);
    }
}

#[test]
fn a_note_that_names_no_commit_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    put(
        dir.path(),
        "models--some-one--some.thing/refs/main",
        "../../..",
    );
    put(dir.path(), "secret", "x");
    let asset = sample(RepoType::Model, "main", &[("secret", None)]);
    assert_eq!(HubCache::at(dir.path()).find(&asset, &asset.files[0]), None);
}

#[test]
fn folders_are_not_taken_for_files() {
    let dir = tempfile::tempdir().unwrap();
    let below = format!("models--some-one--some.thing/snapshots/{COMMIT}/a/b");
    put(dir.path(), &below, "x");
    let asset = sample(RepoType::Model, COMMIT, &[("a", None)]);
    assert_eq!(HubCache::at(dir.path()).find(&asset, &asset.files[0]), None);
}

#[test]
fn all_files_come_in_order_or_the_first_missing_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let cache = HubCache::at(dir.path());
    let asset = sample(RepoType::Model, COMMIT, &[("b", Some(3)), ("a", None)]);
    let snapshot = format!("models--some-one--some.thing/snapshots/{COMMIT}");
    let b = put(dir.path(), &format!("{snapshot}/b"), "123");
    match cache.locate_asset(&asset).unwrap_err() {
        Error::Missing {
            name,
            expected_path,
            command,
        } => {
            assert_eq!(name, "sample");
            assert_eq!(expected_path, b.with_file_name("a"));
            assert!(command.starts_with("hf download some-one/some.thing b a --revision"));
            assert!(command.contains("--cache-dir"), "{command}");
        }
        other => panic!("{other}"),
    }
    let a = put(dir.path(), &format!("{snapshot}/a"), "");
    assert_eq!(cache.locate_asset(&asset).unwrap(), [b.clone(), a]);
    fs::write(&b, "1234").unwrap();
    let error = cache.locate_asset(&asset).unwrap_err().to_string();
    assert!(error.contains("expected 3 bytes, found 4"), "{error}");
}

#[test]
fn a_revision_never_downloaded_is_missed_at_its_note() {
    let dir = tempfile::tempdir().unwrap();
    match HubCache::at(dir.path()).locate("clip-b16").unwrap_err() {
        Error::Missing { expected_path, .. } => assert!(expected_path.ends_with("refs/refs/pr/4")),
        other => panic!("{other}"),
    }
}

#[test]
fn names_without_a_place_on_the_hub_say_what_to_do() {
    let cache = HubCache::at("nowhere");
    let error = cache.locate("ffhq-p2").unwrap_err().to_string();
    assert!(error.contains("Google Drive id 1nlC"), "{error}");
    let error = cache.locate("inceptoin").unwrap_err().to_string();
    assert_eq!(
        error,
        "no asset is called \"inceptoin\"; did you mean inception? (`cargo xtask fetch --list` shows all names)"
    );
}

#[test]
fn the_command_names_files_kind_and_revision() {
    let command = |name| fetch_command(asset(name).unwrap());
    assert_eq!(
        command("clip-b16"),
        "hf download openai/clip-vit-base-patch16 model.safetensors tokenizer.json --revision refs/pr/4"
    );
    assert!(command("metfaces").starts_with(
        "hf download huggan/metfaces data/train-00000-of-00004.parquet data/train-00001-of-00004.parquet"
    ));
    assert!(command("metfaces").contains(" --repo-type dataset --revision c9754a23"));
    // Where the client looks by itself, it need not be told.
    let cache = HubCache::from_variables(|_| Some(OsString::from("/a"))).unwrap();
    let asset = asset("irse50").unwrap();
    assert_eq!(cache.command(&fetch_command(asset)), fetch_command(asset));
}

#[cfg(unix)]
#[test]
fn a_verified_file_has_the_hash_it_was_downloaded_under() {
    let dir = tempfile::tempdir().unwrap();
    let cache = HubCache::at(dir.path());
    let repository = "models--achiru--DiffSynth-Studio-ImageMetrics";
    put(dir.path(), &format!("{repository}/refs/main"), COMMIT);
    let hash = sdft_files::sha256_bytes(b"weights");
    let blob = put(dir.path(), &format!("{repository}/blobs/{hash}"), "weights");
    let file = dir.path().join(format!(
        "{repository}/snapshots/{COMMIT}/FID/model.safetensors"
    ));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&blob, &file).unwrap();
    assert_eq!(cache.locate_verified("inception").unwrap(), [file]);
    fs::write(&blob, "weighty").unwrap();
    let error = cache.locate_verified("inception").unwrap_err().to_string();
    assert!(error.contains("damaged or another file"), "{error}");
    assert!(error.contains("cargo xtask fetch inception"), "{error}");
}

#[test]
fn files_of_other_servers_are_next_to_the_hubs() {
    let web = |variables: &[(&str, &str)]| {
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let cache = HubCache::from_variables(get).unwrap();
        let file = WebFile {
            url: "https://a.b:1/c/d.pt".to_owned(),
        };
        cache.path_of_web(&file).unwrap()
    };
    let path = "sdft/a.b-1/files/c/d.pt";
    assert_eq!(
        web(&[("HOME", "/e")]),
        Path::new("/e/.cache/huggingface/assets").join(path)
    );
    assert_eq!(
        web(&[("HF_HUB_CACHE", "/a/hub")]),
        Path::new("/a/assets").join(path)
    );
    let both = [("HF_ASSETS_CACHE", "~/x"), ("HOME", "/e")];
    assert_eq!(web(&both), Path::new("/e/x").join(path));

    let dir = tempfile::tempdir().unwrap();
    let cache = HubCache::at(dir.path());
    let asset = asset("edm-ffhq-64").unwrap();
    let error = cache.locate("edm-ffhq-64").unwrap_err().to_string();
    for text in [
        "cargo xtask fetch edm-ffhq-64",
        "curl --fail -O https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/",
    ] {
        assert!(
            error.contains(text) && !error.contains("--cache-dir"),
            "{error}"
        );
    }
    let file = &asset.files[0];
    let path = format!(
        "web/nvlabs-fi-cdn.nvidia.com/files/edm/pretrained/{}",
        file.path
    );
    let path = put(dir.path(), &path, "x");
    assert_eq!(cache.locate("edm-ffhq-64").unwrap(), [path]);
}
