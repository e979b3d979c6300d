//! Images and classes in the metadata of a file, and the defaults of files without them.

mod architectures;

use architectures::{all, loaded, process};
use sdft_checkpoint::write_safetensors;
use sdft_diffusion::{CLASSES_KEY, IMAGE_KEY, Precond};
use sdft_edm::{DhariwalConfig, EdmConfig, ModelConfig};
use sdft_imaging::{Depth, ImageSpec};
use sdft_models::{
    Architecture, Classes, LoadOptions, LoadedModel, NetworkFile, convert_file,
    convert_to_diffusers, inspect_file, load_network, network_metadata, save_network,
};
use std::path::Path;

fn load(path: &Path) -> LoadedModel {
    load_network(path, &LoadOptions::default()).unwrap()
}

fn classes() -> Classes {
    Classes::new(vec!["cat".into(), "dog \"big\"".into()], true)
}

/// A grey 12-bit model of two classes with a null class, for images of 8x16.
fn special(architecture: Architecture) -> LoadedModel {
    let classes = classes();
    let mut model = loaded(architecture.with_channels(1).with_classes(Some(&classes)));
    model.image = ImageSpec {
        range: [0.0, 4095.0],
        ..ImageSpec::new(1, Depth::U16, 16, 8)
    };
    model.classes = Some(classes);
    model
}

#[test]
fn images_and_classes_come_back_from_files_and_conversions() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (
        dir.path().join("net.safetensors"),
        dir.path().join("copy.safetensors"),
    );
    for architecture in all() {
        let model = special(architecture);
        save_network(&path, &model.file(), &model.params, None).unwrap();
        convert_file(&path, &copy, &LoadOptions::default(), None).unwrap();
        for path in [&path, &copy] {
            let again = load(path);
            assert_eq!(again.architecture, model.architecture);
            assert_eq!((again.image, &again.classes), (model.image, &model.classes));
            assert_eq!((again.n_classes(), again.null_class()), (2, Some(2)));
            let resolved = inspect_file(path, &LoadOptions::default()).unwrap();
            let resolved = resolved.resolved.unwrap();
            assert_eq!(
                (resolved.image, &resolved.classes),
                (model.image, &model.classes)
            );
        }
    }
}

#[test]
fn a_file_states_only_what_differs_from_its_architecture() {
    for architecture in all() {
        let model = loaded(architecture.clone());
        let keys = |file: &NetworkFile<'_>| {
            let metadata = network_metadata(file).unwrap();
            [IMAGE_KEY, CLASSES_KEY].map(|key| metadata.contains_key(key))
        };
        assert_eq!(keys(&model.file()), [false; 2]);
        assert_eq!(
            keys(&NetworkFile::new(&architecture, &model.process)),
            [false; 2]
        );
        // Numbers are the names of classes that have no other.
        let numbered = Classes::numbered(5, false);
        let conditional = loaded(architecture.clone().with_classes(Some(&numbered)));
        assert_eq!(keys(&conditional.file()), [false; 2]);
        assert_eq!(keys(&special(architecture).file()), [true; 2]);
    }
}

#[test]
fn without_metadata_the_architecture_decides() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors");
    for architecture in all() {
        let numbered = Classes::numbered(3, false);
        let model = loaded(architecture.with_channels(4).with_classes(Some(&numbered)));
        let file = NetworkFile::new(&model.architecture, &model.process);
        save_network(&path, &file, &model.params, None).unwrap();
        let again = load(&path);
        assert_eq!(again.image, ImageSpec::new(4, Depth::U8, 8, 8));
        // The table of a DiT always has a null class.
        let null = again.architecture.dit().map(|_| 3);
        assert_eq!(again.classes, Some(Classes { null, ..numbered }));
        assert_eq!((again.n_classes(), again.null_class()), (3, null));
        let unconditional = loaded(all().remove(0));
        assert_eq!(
            (unconditional.n_classes(), unconditional.null_class()),
            (0, None)
        );
    }
}

#[test]
fn edm_networks_that_were_trained_with_dropped_labels_have_a_null_class() {
    let of = |label_dropout| {
        let model = DhariwalConfig {
            label_dropout,
            ..DhariwalConfig::default()
        };
        let architecture = Architecture::Edm(EdmConfig {
            label_dim: 10,
            precond: Precond::EDM,
            model: ModelConfig::DhariwalUNet(model),
            ..EdmConfig::default()
        });
        architecture.classes().unwrap().null
    };
    assert_eq!((of(0.0), of(0.1)), (None, Some(10)));
}

#[test]
fn metadata_that_does_not_fit_the_network_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors");
    for architecture in [all().remove(0), all().remove(4), all().remove(9)] {
        let model = special(architecture);
        for (key, text, named) in [
            (IMAGE_KEY, r#"{"width":8}"#, "missing field"),
            (
                IMAGE_KEY,
                r#"{"width":8,"height":8,"channels":3,"depth":8,"range":[0,255]}"#,
                "channels: expected 1, as the network has, found 3",
            ),
            (
                IMAGE_KEY,
                r#"{"width":8,"height":9,"channels":1,"depth":8,"range":[0,255]}"#,
                "multiples of 2",
            ),
            (
                IMAGE_KEY,
                r#"{"width":8,"height":8,"channels":1,"depth":8,"range":[255,0]}"#,
                "range: expected a number and a larger one",
            ),
            (CLASSES_KEY, r#"{"names":[]}"#, "at least one class"),
            (
                CLASSES_KEY,
                r#"{"names":["a","a"],"null":2}"#,
                "found a twice",
            ),
            (
                CLASSES_KEY,
                r#"{"names":["a","b"],"null":0}"#,
                "null: expected 2",
            ),
            (
                CLASSES_KEY,
                r#"{"names":["a","b","c","d"],"null":4}"#,
                "classes, as the network has",
            ),
            (
                CLASSES_KEY,
                r#"{"names":["a","b"],"nul":2}"#,
                "unknown field",
            ),
        ] {
            let mut metadata = network_metadata(&model.file()).unwrap();
            metadata.insert(key.to_owned(), text.to_owned());
            write_safetensors(&path, model.params.iter(), &metadata, None).unwrap();
            let error = load_network(&path, &LoadOptions::default()).unwrap_err();
            let error = error.to_string();
            let is_named = error.contains(key) && error.contains(named);
            assert!(is_named, "{error}");
        }
    }
}

#[test]
fn a_folder_of_diffusers_keeps_size_classes_and_depth_and_its_note_names_the_null_class() {
    let dir = tempfile::tempdir().unwrap();
    for architecture in [all().remove(0), all().remove(4)] {
        let model = special(architecture.clone());
        let path = dir.path().join("net.safetensors");
        save_network(&path, &model.file(), &model.params, None).unwrap();
        let folder = dir.path().join(architecture.name());
        let options = LoadOptions::default();
        let notes = convert_to_diffusers(&path, &folder, &options, None).unwrap();
        let null = "row 2 of class_embedding is the null class";
        assert!(notes.iter().any(|note| note.contains(null)), "{notes:?}");
        let again = load(&folder);
        assert_eq!(again.architecture.image_shape(), [1, 8, 16]);
        assert_eq!(again.architecture.n_classes(), 3);
        assert_eq!((again.image, again.classes), (model.image, model.classes));
        assert_eq!(
            again.process.diffusion_steps,
            process(&architecture).diffusion_steps
        );
    }
}
