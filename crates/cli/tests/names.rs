//! Names in place of paths: the paths they resolve to, the errors of unknown names, and the list of missing files for `xtask`.

mod common;

use common::{Run, Workspace, workspace};
use serde_json::Value;
use std::path::PathBuf;

const COMMIT: &str = "57178e9f4ddfa931018774cccb7ccffe4ac969b5";

/// Runs with a separate cache of downloads.
fn run(place: &Workspace, args: &[&str]) -> Run {
    let mut command = place.command(args);
    for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"] {
        command.env_remove(name);
    }
    Run::from(command.env("HF_HOME", place.path("hf")).output().unwrap())
}

/// The needs that a command reports: names and calls of `sdft-fetch`.
fn needs(place: &Workspace, args: &[&str]) -> (bool, Vec<(String, String)>) {
    let run = run(place, &[&["missing"], args].concat());
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    let answer: Value = serde_json::from_str(&run.out).unwrap();
    let needs = answer["needs"].as_array().unwrap().iter().map(|need| {
        let words: Vec<&str> = need["command"]
            .as_array()
            .unwrap()
            .iter()
            .map(|w| w.as_str().unwrap())
            .collect();
        assert!(!need["what"].as_str().unwrap().is_empty());
        (need["name"].as_str().unwrap().to_owned(), words.join(" "))
    });
    (answer["offline"] == true, needs.collect())
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

/// A command and its needs: names and calls.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

#[test]
fn a_command_lists_the_names_it_needs() {
    let place = workspace();
    for folder in ["photos", "runs/e"] {
        std::fs::create_dir_all(place.path(folder)).unwrap();
    }
    let fetch = ("ffhq-10m", "fetch ffhq-10m");
    let cases: &[Case<'_>] = &[
        (&["train"], &[]),
        (
            &["train", "--source", "ffhq-10m", "--data", "photos"],
            &[fetch],
        ),
        (
            &["train", "--source", "ffhq-10m", "--data", "metfaces"],
            &[fetch, ("metfaces", "prepare metfaces --size 256")],
        ),
        (
            &[
                "train",
                "--data",
                "metfaces",
                "--set",
                "model.image_size=64",
            ],
            &[("metfaces", "prepare metfaces --size 64")],
        ),
        (
            &["train", "--source", "digits-source", "--data", "metfaces"],
            &[("metfaces", "prepare metfaces --size 16")],
        ),
        (
            &[
                "train",
                "--data",
                "mnist-target",
                "--set",
                "source='hf:o/n/x.pt'",
            ],
            &[
                ("hf:o/n/x.pt", "fetch hf:o/n/x.pt"),
                ("mnist", "prepare mnist"),
            ],
        ),
        (
            &["train", "--data", "photos", "--set", "eval.every=10"],
            &[("inception", "fetch inception")],
        ),
        (
            &[
                "train",
                "--data",
                "photos",
                "--set",
                "eval.every=10",
                "--set",
                "eval.features=dinov2",
            ],
            &[("dinov2", "fetch dinov2")],
        ),
        (
            &["sample", "--model", "imagenet-256"],
            &[("imagenet-256", "fetch imagenet-256")],
        ),
        (
            &["sample", "--model", "digits-source", "--guide", "ffhq-10m"],
            &[fetch],
        ),
        (
            &["evaluate", "--real", "metfaces", "--fake", "photos"],
            &[
                ("metfaces", "prepare metfaces --size 256"),
                ("inception", "fetch inception"),
            ],
        ),
        (&["evaluate", "--real", "digits", "--fake", "photos"], &[]),
        (
            &[
                "evaluate",
                "--real",
                "photos",
                "--fake",
                "photos",
                "--features",
                "dinov2",
                "--intra-lpips",
                "photos",
            ],
            &[("dinov2", "fetch dinov2"), ("lpips-vgg", "fetch lpips-vgg")],
        ),
        (
            &[
                "evaluate",
                "--pairs",
                "photos",
                "photos",
                "--without",
                "identity",
                "--text",
                "a",
                "b",
            ],
            &[
                ("lpips-alex", "fetch lpips-alex"),
                ("clip-b16", "fetch clip-b16"),
            ],
        ),
        (&["inspect", "ffhq-10m"], &[fetch]),
        (&["edit"], &[]),
        (&["edit", "train"], &[]),
        (
            &[
                "edit",
                "train",
                "--config",
                "smiling",
                "--model",
                "ffhq-10m",
                "--data",
                "metfaces",
                "--t-edit",
                "auto",
                "--set",
                "goal.identity=0.5",
            ],
            &[
                fetch,
                ("metfaces", "prepare metfaces --size 256"),
                ("clip-b16", "fetch clip-b16"),
                ("irse50", "fetch irse50"),
                ("lpips-alex", "fetch lpips-alex"),
            ],
        ),
        (
            &[
                "edit",
                "apply",
                "--model",
                "ffhq-10m",
                "--edit",
                "hf:o/n/smile.pth",
                "--input",
                "photos",
            ],
            &[fetch, ("hf:o/n/smile.pth", "fetch hf:o/n/smile.pth")],
        ),
        (
            &[
                "edit",
                "range",
                "--model",
                "digits-source",
                "--data",
                "photos",
                "--from",
                "a",
                "--to",
                "b",
            ],
            &[
                ("clip-b16", "fetch clip-b16"),
                ("lpips-alex", "fetch lpips-alex"),
            ],
        ),
        (
            &[
                "edit",
                "apply",
                "--model",
                "ffhq-10m",
                "--autoencoder",
                "sd-vae-ft-mse",
                "--edit",
                "runs/e",
                "--input",
                "photos",
            ],
            &[fetch, ("sd-vae-ft-mse", "fetch sd-vae-ft-mse")],
        ),
        (
            &[
                "edit",
                "range",
                "--model",
                "digits-source",
                "--autoencoder",
                "sd-vae-ft-mse",
                "--data",
                "photos",
                "--from",
                "a",
                "--to",
                "b",
            ],
            &[
                ("sd-vae-ft-mse", "fetch sd-vae-ft-mse"),
                ("clip-b16", "fetch clip-b16"),
                ("lpips-alex", "fetch lpips-alex"),
            ],
        ),
        (
            &["data", "select", "photos", "--prompt", "x", "--top", "3"],
            &[("clip-b32", "fetch clip-b32")],
        ),
        (
            &[
                "train-classifier",
                "--source",
                "ffhq-256",
                "--target",
                "photos",
                "--model",
                "ffhq-10m",
            ],
            &[fetch, ("ffhq-256", "prepare ffhq-256 --size 256")],
        ),
    ];
    for (args, expected) in cases {
        assert_eq!(needs(&place, args), (false, pairs(expected)), "{args:?}");
    }
    // The command itself reports invalid arguments and other paths.
    for args in [
        &["train", "--source"][..],
        &["trian"],
        &[],
        &["train", "--source", "ffhq-p2"],
        &["train", "--source", "ffhq10m"],
        &["train", "--set", "nonsense=1", "--source", "ffhq-10m"],
        &["train", "--source", "./ffhq-10m"],
    ] {
        assert_eq!(needs(&place, args), (false, vec![]), "{args:?}");
    }
    let offline = needs(&place, &["train", "--offline", "--source", "ffhq-10m"]);
    assert!(offline.0);
    let mut command = place.command(&["missing", "train"]);
    let run = Run::from(command.env("HF_HUB_OFFLINE", "1").output().unwrap());
    assert!(run.out.contains("\"offline\":true"), "{run:?}");
}

#[test]
fn a_missing_file_is_explained_with_every_way_to_get_it() {
    let place = workspace();
    for (args, texts) in [
        (
            &["train", "--source", "ffhq-10m"][..],
            &[
                "--source ffhq-10m",
                COMMIT,
                "cargo xtask fetch ffhq-10m",
                "hf download deepinv/diffunet",
            ][..],
        ),
        (
            &["train", "--offline", "--data", "metfaces"],
            &[
                "--data metfaces",
                "data/metfaces-64",
                "cargo xtask data prepare metfaces --size 64",
                "hf download",
            ],
        ),
        (
            &["train", "--source", "ffhq-p2"],
            &["Google Drive", "checkpoints/ffhq_p2.pt"],
        ),
        (
            &["train", "--data", "aahq"],
            &["onion-liu/aahq-dataset", "data/aahq"],
        ),
        (
            &["sample", "--model", "ffhq10m"],
            &["did you mean ffhq-10m?", "fetch --list"],
        ),
        (&["train", "--source", "metfaces"], &["expected weights"]),
        (&["train", "--data", "ffhq-10m"], &["expected images"]),
        (
            &["train", "--source", "hf:a/b"],
            &["hf:OWNER/NAME[@REVISION]/PATH"],
        ),
        (
            &["train", "--source", "hf:a/b/c.pt"],
            &["cargo xtask fetch hf:a/b/c.pt"],
        ),
        (&["data", "prepare", "x"], &["cargo xtask"]),
    ] {
        let run = run(&place, args);
        assert_eq!(run.code, Some(2), "{args:?}: {run:?}");
        for text in texts {
            assert!(run.err.contains(text), "{args:?}: {text}: {}", run.err);
        }
        assert!(run.err.lines().count() <= 20, "{}", run.err);
    }
    assert!(!place.path("runs").exists());
}

/// Where a file of OpenAI's server is in the cache.
const SERVER: &str = "hf/assets/sdft/openaipublic.blob.core.windows.net";
const LSUN: &str = "diffusion/jul-2021/lsun_bedroom.pt";

#[test]
fn names_become_downloaded_files() {
    let place = workspace();
    let model = sdft_assets::DIGITS_SOURCE_WEIGHTS;
    // Size and hash are unknown.
    place.write(&format!("{SERVER}/files/{LSUN}"), model);
    let repository = "hf/hub/models--BiliSakura--DiffuseIT-ckpt";
    let commit = "85a3dd916b4b04c2016cd1e1e4bb30feaeb42935";
    let file = format!(
        "{repository}/snapshots/{commit}/ffhq-256/unet/diffusion_pytorch_model.safetensors"
    );
    place.write(&file, model);
    let run_ok = |args: &[&str]| {
        let run = run(&place, args);
        assert_eq!(run.code, Some(0), "{args:?}: {run:?}");
        run.out
    };
    let inspected = run_ok(&["inspect", "adm-bedroom-256"]);
    assert!(inspected.contains("ADM U-Net"), "{inspected}");
    let by_place = format!(
        "hf:BiliSakura/DiffuseIT-ckpt@{commit}/ffhq-256/unet/diffusion_pytorch_model.safetensors"
    );
    assert!(run_ok(&["inspect", &by_place]).contains("ADM U-Net"));
    // Copied by the user into the folder for such files.
    place.write("checkpoints/ffhq_p2.pt", model);
    let plan = run_ok(&[
        "train",
        "--source",
        "ffhq-p2",
        "--data",
        "digits",
        "--set",
        "data.style=ember",
        "--dry-run",
    ]);
    assert!(plan.contains("checkpoints/ffhq_p2.pt"), "{plan}");

    let set = place.path("data/metfaces-16");
    std::fs::create_dir_all(&set).unwrap();
    for i in 0..4_u8 {
        let picture = sdft_imaging::Rgb8::filled(16, 16, [i, 3 * i, 9]);
        sdft_imaging::write_png(&set.join(format!("{i}.png")), &picture).unwrap();
    }
    let args = [
        "train",
        "--source",
        "adm-bedroom-256",
        "--data",
        "metfaces",
        "--dry-run",
    ];
    assert_eq!(
        needs(&place, &args).1.len(),
        1,
        "a set without its index is not complete"
    );
    std::fs::write(set.join("index.jsonl"), "").unwrap();
    assert_eq!(needs(&place, &args), (false, vec![]));
    let plan = run_ok(&args);
    assert!(
        plan.contains("data/metfaces-16") && plan.contains("# 4 images"),
        "{plan}"
    );
    // A path has priority over a name.
    std::fs::create_dir(place.path("metfaces")).unwrap();
    let png = std::fs::read(set.join("1.png")).unwrap();
    place.write("metfaces/mine.png", &png);
    let plan = run_ok(&args);
    assert!(plan.contains("# 1 image,"), "{plan}");
}

#[cfg(unix)]
#[test]
fn a_changed_file_is_not_used() {
    let place = workspace();
    let model = sdft_assets::DIGITS_SOURCE_WEIGHTS;
    let hash = sdft_files::sha256_bytes(model);
    let blob = place.write(&format!("{SERVER}/blobs/{hash}"), model);
    let link = place.path(&format!("{SERVER}/files/{LSUN}"));
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&blob, &link).unwrap();
    assert_eq!(run(&place, &["inspect", "adm-bedroom-256"]).code, Some(0));
    let mut damaged = model.to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(&blob, damaged).unwrap();
    let run = run(&place, &["inspect", "adm-bedroom-256"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(
        run.err.contains("cargo xtask fetch adm-bedroom-256"),
        "{run:?}"
    );
}

#[test]
fn a_file_of_another_length_is_not_used() {
    let place = workspace();
    let file = format!("hf/hub/models--deepinv--diffunet/snapshots/{COMMIT}/diffusion_ffhq_10m.pt");
    let path: PathBuf = place.write(&file, b"short");
    let run = run(&place, &["train", "--source", "ffhq-10m"]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(
        run.err.contains("374417833")
            && run
                .err
                .contains(path.file_name().unwrap().to_str().unwrap()),
        "{run:?}"
    );
    assert_eq!(needs(&place, &["train", "--source", "ffhq-10m"]).1.len(), 1);
}
