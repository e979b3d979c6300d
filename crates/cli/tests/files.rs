//! Sampling, inspecting and converting files, checking data.

mod common;

use common::workspace;
use std::path::Path;

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name)
        .display()
        .to_string()
}

#[test]
fn samples_depend_on_the_seed_and_their_number_and_not_on_the_batch() {
    let place = workspace();
    let common = ["sample", "--model", "digits-source", "--steps", "ddim10"];
    place
        .run(
            &[
                &common[..],
                &["-n", "5", "--batch", "2", "--out", "a", "--npz"],
            ]
            .concat(),
        )
        .ok();
    place
        .run(&[&common[..], &["-n", "5", "--batch", "5", "--out", "b"]].concat())
        .ok();
    place
        .run(&[&common[..], &["-n", "1", "--seed", "1", "--out", "c"]].concat())
        .ok();
    let image = |name: &str| std::fs::read(place.path(name)).unwrap();
    for i in 0..5 {
        let name = format!("{i:05}.png");
        assert_eq!(image(&format!("a/{name}")), image(&format!("b/{name}")));
    }
    assert_ne!(image("a/00000.png"), image("c/00000.png"));
    assert!(place.path("a-grid.png").is_file());
    let npz = image("a/samples_5x16x16x3.npz");
    assert!(npz.len() > 5 * 16 * 16 * 3);

    // Both samplers, with noise and without clamping, give pictures of the right size.
    place
        .run(&[
            "sample",
            "-n",
            "1",
            "--model",
            "digits-source",
            "--sampler",
            "ddpm",
            "--steps",
            "5",
            "--out",
            "d",
        ])
        .ok();
    place
        .run(&[
            "sample",
            "-n",
            "1",
            "--model",
            "digits-source",
            "--steps",
            "ddim5",
            "--eta",
            "1",
            "--no-clip",
            "--out",
            "e",
        ])
        .ok();
    place
        .run(&["sample", "--model", "digits-source", "--steps", "ddim60"])
        .fails(2, &["--steps", "60"]);
    place
        .run(&["sample", "--model", "digits-source", "-n", "0"])
        .fails(2, &["--n <N>", "from 1"]);
    place
        .run(&["sample", "--model", "digits-source", "--class", "3"])
        .fails(2, &["--class 3", "unconditional"]);
    place
        .run(&["sample", "--model", "digits-sorce.pt"])
        .fails(2, &["--model digits-sorce.pt", "no such file or folder"]);
    place
        .run(&["sample", "--model", "a"])
        .fails(1, &["no model in this folder"]);
}

#[test]
fn model_info_prints_the_configuration_and_its_origin() {
    let place = workspace();
    let source = fixture("assets/weights/digits-source.safetensors");
    let seen = place.run(&["inspect", &source, "--tensors"]).ok();
    for word in [
        "ADM U-Net",
        "984611 parameters",
        "norm_groups",
        "read",
        "time_embed.0.weight",
    ] {
        assert!(seen.out.contains(word), "{word}: {}", seen.out);
    }
    let official = fixture("tests/parity/unet/one_level_pt/weights.pt");
    let seen = place.run(&["inspect", &official]).ok();
    for word in ["PyTorch (zip)", "inferred", "assumed"] {
        assert!(seen.out.contains(word), "{word}: {}", seen.out);
    }
    let judge = fixture("assets/weights/digits-judge.safetensors");
    let seen = place.run(&["inspect", &judge]).ok();
    assert!(seen.out.contains("no network that"), "{}", seen.out);
    let embedded = place.run(&["inspect", "emoji-source"]).ok();
    for words in ["emoji-source: safetensors", "ADM U-Net"] {
        assert!(embedded.out.contains(words), "{words}: {}", embedded.out);
    }
    place
        .run(&["convert", "digits-dit-source", "dit.safetensors"])
        .ok();
    let sample = ["sample", "--model", "dit.safetensors", "--steps", "ddim2"];
    place.run(&[&sample[..], &["-n", "1"]].concat()).ok();
    place.write("page.pt", b"<!DOCTYPE html><html>404</html>");
    place
        .run(&["inspect", "page.pt"])
        .fails(1, &["page.pt", "web page"]);
    place
        .run(&["inspect", "pge.pt"])
        .fails(2, &["did you mean page.pt?"]);
}

#[test]
fn a_checkpoint_converts_to_safetensors_with_its_configuration_and_can_be_trained() {
    let place = workspace();
    let official = fixture("tests/parity/unet/one_level_pt/weights.pt");
    let args = ["convert", &official, "out.safetensors", "--dtype", "f16"];
    place.run(&args).ok();
    let seen = place.run(&["inspect", "out.safetensors"]).ok();
    assert!(
        seen.out.contains("f16") && seen.out.contains("sdft.provenance.converted_sha256"),
        "{}",
        seen.out
    );
    place
        .run(&args)
        .fails(2, &["exists already", "--overwrite"]);
    place
        .run(&["convert", &official, "out.pt"])
        .fails(2, &["only .safetensors"]);
    let nested = fixture("crates/checkpoint/tests/fixtures/zip_nested.pt");
    let chosen = place.run(&["convert", &nested, "ema.safetensors"]).ok();
    assert!(
        chosen.err.contains("\"ema\"") && chosen.err.contains("model"),
        "{}",
        chosen.err
    );
    place
        .run(&["convert", &nested, "raw.safetensors", "--prefer", "raw"])
        .ok();
    let read = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert_ne!(read("ema.safetensors"), read("raw.safetensors"));
    place
        .run(&["convert", &nested, "x.safetensors", "--key", "nope"])
        .fails(1, &["\"nope\"", "\"model\""]);
}

#[test]
fn a_source_model_that_does_not_fit_is_refused_with_a_solution() {
    let place = workspace();
    // The embedded model without its metadata, and without one of its tensors.
    let source = fixture("assets/weights/digits-source.safetensors");
    let state = sdft_checkpoint::read(Path::new(&source), &Default::default()).unwrap();
    let tensors: Vec<_> = state
        .iter()
        .filter(|(name, _)| *name != "out.2.bias")
        .collect();
    let none = std::collections::BTreeMap::new();
    sdft_checkpoint::write_safetensors(&place.path("cut.safetensors"), tensors, &none, None)
        .unwrap();
    sdft_checkpoint::write_safetensors(&place.path("bare.safetensors"), state.iter(), &none, None)
        .unwrap();
    let train = |source: &str, more: &[&str]| {
        let base = [
            "train",
            "--config",
            "digits-sdft",
            "--source",
            source,
            "--steps",
            "1",
        ];
        place.run(&[&base[..], more].concat())
    };
    train("cut.safetensors", &["--set", "model.image_size=16"])
        .fails(1, &["1 missing", "out.2.bias"]);
    // Shapes do not show with what the network is called.
    train("bare.safetensors", &[])
        .fails(1, &["model.precond=edm", "process.noise_schedule=linear"]);
    let process = [
        "--set",
        "process.noise_schedule=linear",
        "--set",
        "process.diffusion_steps=1000",
    ];
    let train = |source: &str, more: &[&str]| train(source, &[&process[..], more].concat());
    // Nor do they show the number of norm groups; 32 are assumed, and the digits need their size.
    train("bare.safetensors", &[]).fails(2, &["16x16"]);
    train(
        "bare.safetensors",
        &[
            "--set",
            "model.image_size=16",
            "--set",
            "model.model_channels=64",
        ],
    )
    .fails(
        1,
        &[
            "of another shape",
            "likely cause: the file has model.model_channels = 32",
        ],
    );
    train(
        "bare.safetensors",
        &[
            "--set",
            "model.image_size=16",
            "--set",
            "model.norm_groups=8",
            "--set",
            "model.num_head_channels=16",
            "--set",
            "output.sampler=ddim2",
        ],
    )
    .ok();
}

#[test]
fn embedded_images_are_counted() {
    let place = workspace();
    let report = place.run(&["data", "check", "emoji"]).ok();
    for text in [
        "3287/2895 images of 32x32 in noto/fluent",
        "\n  kind     smiley ",
        "sad ",
    ] {
        assert!(report.out.contains(text), "{text}: {}", report.out);
    }
    let json = place.run(&["data", "check", "emoji", "--json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["columns"][0]["values"][0][0], "smiley");
    let list = place.run(&["data", "check", "digits", "--list"]).ok();
    assert!(list.out.contains("1797 images") && list.out.contains("\ndigits/1796\n"));
    place
        .run(&["data", "check", "emoji", "--channels", "1"])
        .fails(2, &["data check: emoji", "--list or --json"]);
}

#[test]
fn a_folder_is_checked_and_trained_on() {
    let place = workspace();
    place
        .run(&[
            "sample",
            "--model",
            "digits-source",
            "-n",
            "6",
            "--steps",
            "ddim2",
            "--out",
            "images",
        ])
        .ok();
    std::fs::copy(
        place.path("images/00000.png"),
        place.path("images/twice.png"),
    )
    .unwrap();
    let whole = std::fs::read(place.path("images/00001.png")).unwrap();
    place.write("images/deep/cut.PNG", &whole[..whole.len() / 2]);
    place.write("images/photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic");
    place.write("images/notes.txt", b"of a walk");
    let report = place.run(&["data", "check", "images", "--size", "16"]).ok();
    for word in ["cut.PNG", "twice.png", "photo.heic", "1 x .txt"] {
        assert!(report.out.contains(word), "{word}: {}", report.out);
    }
    let json = place
        .run(&["data", "check", "images", "--size", "16", "--json"])
        .ok();
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["unreadable"].as_array().unwrap().len(), 2);
    assert_eq!(json["others"][0], "notes.txt");
    let strict = place.run(&["data", "check", "images", "--size", "16", "--strict"]);
    let list = [
        "data", "check", "images", "--size", "24x16", "--list", "--fit", "pad",
    ];
    let list = place
        .run(&[&list[..], &["--channels", "1", "--depth", "16"]].concat())
        .ok();
    for line in [
        "\n00000.png: used\n",
        "\nphoto.heic: left out: ",
        "\nnotes.txt: not an image\n",
        "24x16, 1 channel of 16 bits",
    ] {
        assert!(list.out.contains(line), "{line}: {}", list.out);
    }
    for wrong in [
        ["--range", "5"],
        ["--depth", "12"],
        ["--fit", "fill"],
        ["--size", "0x4"],
    ] {
        place
            .run(&[&["data", "check", "images"][..], &wrong].concat())
            .fails(2, &[wrong[0]]);
    }
    let classes = [
        "data",
        "check",
        "images",
        "--size",
        "16",
        "--classes",
        "folders",
    ];
    place
        .run(&classes)
        .fails(1, &["no class for 7 images", "00000.png"]);
    assert_eq!(strict.code, Some(1));
    place
        .run(&["data", "check", "imagse"])
        .fails(2, &["data check: imagse", "did you mean images?"]);

    let train = [
        "train",
        "--config",
        "digits-sdft",
        "--data",
        "images",
        "--steps",
        "2",
        "--set",
        "output.sampler=ddim2",
    ];
    let run = place.run(&train).ok();
    for word in ["cut.PNG", "photo.heic", "1 x .txt"] {
        assert!(run.err.contains(word), "{word}: {}", run.err);
    }
    place
        .run(&[&train[..], &["--strict"]].concat())
        .fails(1, &["cut.PNG"]);
}

#[test]
fn the_doctor_prints_what_will_be_used() {
    let seen = workspace().run(&["--threads", "1", "doctor"]).ok();
    for word in [
        "cores",
        "1 thread will be used",
        "kernels",
        "GFLOP/s",
        "disk",
        "gpu",
        "device    cpu",
    ] {
        assert!(seen.out.contains(word), "{word}: {}", seen.out);
    }
}
