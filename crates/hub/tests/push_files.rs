//! Publishing a model: what is chosen of a folder, and what needs an order.

mod common;

use std::{fs, path::PathBuf};

use common::{
    Server, quick,
    runs::{TOKEN, publication, push, run_in, settings, target},
};
use sdft_hub::{NoopFetchProgress, Publication, Settings, write_card};

#[test]
fn nothing_is_sent_without_an_order_a_token_or_a_valid_name() {
    let home = tempfile::tempdir().unwrap();
    let run = run_in(home.path());
    let server = Server::start(&[]);
    let call = |args: &[&str]| push(&server, home.path(), args);

    let (code, out, err) = call(&["cats-sdft", "ann/cats", "--dry-run"]);
    assert_eq!(code, Some(0), "{err}");
    for text in [
        "to ann/cats:",
        "final.safetensors",
        "300.0 kB",
        "4 files, ",
        "not published: SHA256SUMS, best.safetensors, checkpoints, events.out.tfevents.sdft, log.jsonl, notes.txt, run.lock",
    ] {
        assert!(out.contains(text), "{text}: {out}");
    }
    assert!(
        err.contains("TO FILL IN") && err.contains("nothing was sent"),
        "{err}"
    );

    let (code, _, err) = call(&["cats-sdft", "ann/cats"]);
    assert_eq!(code, Some(2));
    assert!(
        err.contains("no terminal") && err.contains("--yes"),
        "{err}"
    );

    let (code, _, err) = call(&["cats-sdft", "cats", "--yes"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("cats: expected OWNER/NAME"), "{err}");

    let (code, _, err) = call(&["cats", "ann/cats", "--yes"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("cats: no such folder"), "{err}");

    fs::rename(run.join("final.safetensors"), run.join("other.bin")).unwrap();
    let (code, _, err) = call(&["cats-sdft", "ann/cats", "--yes"]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("the run is not finished: final.safetensors is missing"),
        "{err}"
    );
    fs::rename(run.join("other.bin"), run.join("final.safetensors")).unwrap();

    let publication = publication(&run);
    let mut without = quick(Settings::new(&server.address, home.path()));
    let upload = |settings: &Settings| {
        publication
            .upload(settings, false, &mut NoopFetchProgress)
            .unwrap_err()
            .to_string()
    };
    assert!(upload(&without).contains("no token"));
    without.offline = true;
    assert!(upload(&without.with_token(TOKEN)).contains("HF_HUB_OFFLINE"));
    assert!(server.log().is_empty(), "{:?}", server.log());
}

#[test]
fn a_generated_card_is_completed_by_hand_and_then_published_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let run = run_in(home.path());
    let server = Server::start(&[]);
    let (code, out, err) = push(
        &server,
        home.path(),
        &["cats-sdft", "ann/cats", "--card-only"],
    );
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.trim().ends_with("README.md") && err.contains("TO FILL IN"),
        "{out}{err}"
    );
    assert!(server.log().is_empty());
    let card = fs::read_to_string(run.join("README.md")).unwrap();
    assert!(card.starts_with("---\n# license: TO FILL IN"), "{card}");
    assert!(
        card.contains("| 1.250 | 1.250 |") && card.contains("samples/step-000020.png"),
        "{card}"
    );
    let error = write_card(&run, &target(), &[]).unwrap_err().to_string();
    assert!(error.contains("README.md: exists"), "{error}");

    let text = "---\nlicense: mit\n---\nMy cats.\n";
    fs::write(run.join("README.md"), text).unwrap();
    let publication = publication(&run);
    assert!(!publication.has_gaps());
    publication
        .upload(
            &settings(&server, home.path()),
            false,
            &mut NoopFetchProgress,
        )
        .unwrap();
    assert_eq!(server.received().commits[0].1["README.md"], text.as_bytes());
}

#[test]
fn pictures_with_training_images_are_published_by_name_only() {
    let home = tempfile::tempdir().unwrap();
    let run = run_in(home.path());
    let listed = |with: &[&str]| -> Result<Vec<String>, String> {
        let with: Vec<PathBuf> = with.iter().map(PathBuf::from).collect();
        let publication =
            Publication::of(&run, target(), &with).map_err(|error| error.to_string())?;
        Ok(publication
            .files()
            .iter()
            .map(|file| file.path.clone())
            .collect())
    };
    let strip = "samples/neighbours-000020.png";
    let full = run.join(strip).display().to_string();
    assert!(
        !listed(&[])
            .unwrap()
            .iter()
            .any(|path| path.contains("neighbours"))
    );
    assert_eq!(
        listed(&[strip, &full])
            .unwrap()
            .iter()
            .filter(|path| *path == strip)
            .count(),
        1
    );
    assert!(
        listed(&["best.safetensors"])
            .unwrap()
            .contains(&"best.safetensors".to_owned())
    );
    fs::write(home.path().join("secret.png"), "").unwrap();
    for (file, problem) in [
        ("log.jsonl", "expected a picture"),
        (
            "checkpoints/step-000020/optimizer.safetensors",
            "expected a picture",
        ),
        ("samples/step-000099.png", "no such file"),
        ("../secret.png", "expected a file in"),
    ] {
        let error = listed(&[file]).unwrap_err();
        assert!(
            error.contains("--with") && error.contains(problem),
            "{error}"
        );
    }
}

#[test]
fn a_folder_of_diffusers_is_published_without_paths_and_without_other_files() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("model");
    for part in ["unet", "scheduler", "logs"] {
        fs::create_dir_all(root.join(part)).unwrap();
    }
    let config = r#"{"_name_or_path": "/home/ann/model", "base": "owner/name"}"#;
    for (name, text) in [
        ("model_index.json", r#"{"_class_name": "DDPMPipeline"}"#),
        ("unet/config.json", config),
        ("unet/diffusion_pytorch_model.safetensors", "weights"),
        ("unet/optimizer.bin", "state"),
        ("scheduler/scheduler_config.json", "{}"),
        ("logs/host.json", "{}"),
    ] {
        fs::write(root.join(name), text).unwrap();
    }
    let server = Server::start(&[]);
    publication(&root)
        .upload(
            &settings(&server, home.path()),
            false,
            &mut NoopFetchProgress,
        )
        .unwrap();
    let received = server.received();
    let files = &received.commits[0].1;
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "README.md",
            "model_index.json",
            "scheduler/scheduler_config.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors"
        ]
    );
    let config: serde_json::Value = serde_json::from_slice(&files["unet/config.json"]).unwrap();
    assert_eq!(
        config,
        serde_json::json!({"_name_or_path": "model", "base": "owner/name"})
    );

    fs::remove_file(root.join("unet/diffusion_pytorch_model.safetensors")).unwrap();
    let error = Publication::of(&root, target(), &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("no weights (.safetensors)"), "{error}");
}
