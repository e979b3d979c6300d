//! Networks pickled by NVIDIA's persistence class (fixtures/make_snapshot.py), and pickles that only look like one.

mod common;

use candle_core::{DType, Tensor};
use common::s;
use sdft_checkpoint::{
    CONSTRUCTOR_KEY, Container, ReadOptions, StateDict, describe, read, read_bytes,
};
use sdft_counting_alloc::CountingAllocator;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator::new();

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn snapshot() -> Vec<u8> {
    std::fs::read(fixture("snapshot.pkl")).unwrap()
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("snapshot.json")).unwrap()).unwrap()
}

fn keep() -> ReadOptions {
    ReadOptions {
        keep_dtype: true,
        ..ReadOptions::default()
    }
}

/// The bits of a tensor's numbers, as signed integers.
fn bits(tensor: &Tensor) -> Vec<i64> {
    let flat = tensor.flatten_all().unwrap();
    match tensor.dtype() {
        DType::F64 => {
            let values: Vec<f64> = flat.to_vec1().unwrap();
            values.iter().map(|v| v.to_bits().cast_signed()).collect()
        }
        _ => {
            let values: Vec<f32> = flat.to_vec1().unwrap();
            let bits = values.iter().map(|v| v.to_bits().cast_signed());
            bits.map(i64::from).collect()
        }
    }
}

fn assert_snapshot(state: &StateDict) {
    let expected = &expected()["state"];
    let names: Vec<&str> = state.iter().map(|(name, _)| name).collect();
    let order: Vec<&String> = expected.as_object().unwrap().keys().collect();
    assert_eq!(state.len(), order.len(), "{names:?}");
    for (name, tensor) in state.iter() {
        let want = &expected[name];
        assert_eq!(json!(tensor.dims()), want["shape"], "{name}");
        assert_eq!(json!(bits(tensor)), want["bits"], "{name}");
    }
    // `state_dict()` has the parameters and buffers of a module before those of its modules.
    assert_eq!(names[..3], ["model.doubles", "model.tied", "model.freqs"]);
}

#[test]
fn a_snapshot_equals_its_state_dict_to_the_bit() {
    let _memory = MEMORY.exclusive();
    let state = read(&fixture("snapshot.pkl"), &keep()).unwrap();
    assert_snapshot(&state);
    assert_eq!(state.summary.container, Container::Pickle);
    assert_eq!(state.summary.nested_under.as_deref(), Some("ema"));
    // A buffer that is not persistent is not part of a state dict.
    assert!(state.get("model.scratch").is_none());
    let others: Vec<&str> = state
        .summary
        .tensors
        .iter()
        .map(|t| t.name.as_str())
        .collect();
    assert_eq!(others.len(), state.len());
    let key = ReadOptions {
        key: Some("augment_pipe".into()),
        ..keep()
    };
    let pipe = read(&fixture("snapshot.pkl"), &key).unwrap();
    assert_eq!(pipe.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["p"]);
}

#[test]
fn the_arguments_of_the_constructors_are_in_the_metadata() {
    let _memory = MEMORY.exclusive();
    let summary = describe(&fixture("snapshot.pkl"), &keep()).unwrap();
    let found: Value = serde_json::from_str(&summary.metadata[CONSTRUCTOR_KEY]).unwrap();
    let expected = expected();
    assert_eq!(found["class_name"], expected["class_name"]);
    assert_eq!(found["kwargs"], expected["kwargs"]);
    assert_eq!(found["kwargs"]["dropout"], 0.13);
    assert_eq!(found["args"], json!([]));
    let model = &found["modules"]["model"];
    assert_eq!(model["class_name"], expected["model"]["class_name"]);
    assert_eq!(model["kwargs"], expected["model"]["kwargs"]);
    assert!(model.get("modules").is_none());
}

#[test]
fn a_damaged_snapshot_is_an_error_or_the_same_network() {
    let memory = MEMORY.exclusive();
    let sound = snapshot();
    for len in (0..sound.len())
        .step_by(3)
        .chain(sound.len() - 40..sound.len())
    {
        let cut = read_bytes("cut", &sound[..len], &keep());
        assert!(cut.is_err(), "cut to {len} of {}", sound.len());
    }
    let mut z = 1u64;
    let mut random = || {
        z = z
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(z >> 33).unwrap()
    };
    for _ in 0..5000 {
        let mut bytes = sound.clone();
        for _ in 0..=random() % 4 {
            let at = random() % bytes.len();
            bytes[at] = u8::try_from(random() % 256).unwrap();
        }
        let (_, peak) = memory.peak_of(|| drop(read_bytes("flipped", &bytes, &keep())));
        assert!(peak < 40 * sound.len() + (1 << 20), "{peak} bytes");
    }
}

/// `\x80\x04`, the opcodes and a full stop.
fn pickle(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = b"\x80\x04".to_vec();
    parts.iter().for_each(|part| out.extend(*part));
    out.push(b'.');
    out
}

fn error(parts: &[&[u8]]) -> String {
    let error = read_bytes("x.pkl", &pickle(parts), &ReadOptions::default());
    error.unwrap_err().to_string()
}

#[test]
fn a_pickle_that_wants_to_run_a_command_runs_nothing() {
    let _memory = MEMORY.exclusive();
    let command = b"X\x18\0\0\0touch executed-by-pickle";
    let calls: [&[&[u8]]; 4] = [
        &[b"cposix\nsystem\n(", command, b"tR"],
        &[b"(", command, b"iposix\nsystem\n"],
        &[b"(cposix\nsystem\n", command, b"o"],
        &[b"}X\x03\0\0\0emacposix\nsystem\n(", command, b"tRs"],
    ];
    for parts in calls {
        let error = error(parts);
        assert!(
            error.contains("bare pickle") && error.contains("posix.system"),
            "{error}"
        );
    }
    // As the state of a network, next to its weights, and as the source of its class.
    let sound = snapshot();
    let at = sound.windows(6).position(|w| w == b"raise ").unwrap();
    let mut bytes = sound.clone();
    bytes[at..at + 6].copy_from_slice(b"system");
    assert_snapshot(&read_bytes("x.pkl", &bytes, &keep()).unwrap());
    assert!(!Path::new("executed-by-pickle").exists());
}

#[test]
fn pickles_without_a_network_are_explained() {
    let _memory = MEMORY.exclusive();
    assert!(error(&[b"K\x01"]).contains("bare pickle without tensors"));
    assert!(error(&[b"}"]).contains("bare pickle without tensors"));
    assert!(error(&[b"\xff"]).contains("unknown operation 0xff"));
    assert!(error(&[b"K\x01.K\x02"]).contains("3 bytes after its end"));
    assert!(error(&[b"B\xff\xff\xff\xff"]).contains("longer than the file"));
    let load = b"ctorch.storage\n_load_from_bytes\n";
    let zip = [load, b"(C\x08PK\x03\x04....tR".as_slice()].concat();
    assert!(
        error(&[&zip]).contains("legacy format"),
        "{}",
        error(&[&zip])
    );
    let mut file = common::legacy(&common::dict([("a", s("b"))]), 2);
    let mut whole = load.to_vec();
    whole.extend(b"(B");
    whole.extend((file.len() as u32).to_le_bytes());
    whole.append(&mut file);
    whole.extend(b"tR");
    let text = error(&[&whole]);
    assert!(text.contains("expected a storage"), "{text}");
}

/// The opcodes of a storage of two f32, remembered as 1.
fn storage() -> Vec<u8> {
    let mut file =
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}."
            .to_vec();
    file.extend(
        b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02NtQ.",
    );
    file.extend(b"\x80\x02](X\x01\0\0\x000e.");
    file.extend(2u64.to_le_bytes());
    file.extend([1f32, 2.0].iter().flat_map(|v| v.to_le_bytes()));
    let mut out = vec![b'B'];
    out.extend((file.len() as u32).to_le_bytes());
    out.extend(file);
    out.extend(b"\x85q\x01");
    out
}

/// A module, remembered as `key`, with these modules.
fn module(key: u8, parameters: &[u8], modules: &[u8]) -> Vec<u8> {
    let mut out = b"cm\nM\n)\x81q".to_vec();
    out.push(key);
    out.extend(b"}(X\x0b\0\0\0_parameters}(");
    out.extend(parameters);
    out.extend(b"uX\x08\0\0\0_modules}(");
    out.extend(modules);
    out.extend(b"uub");
    out
}

#[test]
fn small_pickles_that_stand_for_much_are_bounded() {
    let memory = MEMORY.exclusive();
    let size = 300_000;
    let load = b"ctorch.storage\n_load_from_bytes\nq\x000".as_slice();
    let again = b"h\x00h\x01R0".repeat(size / 6);
    let tensor = [
        b"ctorch._utils\n_rebuild_tensor_v2\n(h\x00h\x01RK\0K\x02\x85",
        b"K\x01\x85\x89}tRq\x020".as_slice(),
    ]
    .concat();
    let storage = [&storage(), b"0".as_slice()].concat();
    // Modules that contain the one before twice; one that contains itself; a thousand, each in the next.
    let mut doubling = [
        load,
        &storage,
        &tensor,
        &module(10, b"X\x01\0\0\0wh\x02", b""),
        b"0",
    ]
    .concat();
    for key in 11..60 {
        let before = [
            b"X\x01\0\0\0ah".as_slice(),
            &[key - 1],
            b"X\x01\0\0\0bh",
            &[key - 1],
        ]
        .concat();
        doubling.extend(module(key, b"", &before));
        doubling.push(b'0');
    }
    doubling.extend(b"h\x3b");
    let cycle = module(10, b"", b"X\x01\0\0\0ah\x0a");
    let mut deep = module(10, b"", b"");
    for _ in 0..1000 {
        deep.push(b'0');
        deep.extend(module(11, b"", b"X\x01\0\0\0ah\x0a"));
        deep.extend(b"q\x0a");
    }
    // Long names, and many of them.
    let long = [
        b"X".as_slice(),
        &100_000u32.to_le_bytes(),
        &b"k".repeat(100_000),
        b"q\x030",
    ]
    .concat();
    let entries = b"h\x03h\x02".repeat(size / 4);
    let inner = module(10, &entries, b"");
    let outer = module(11, b"", &[b"h\x03".as_slice(), &inner].concat());
    let named = [load, &storage, &tensor, &long, &outer].concat();
    // Arguments that double.
    let mut list = b"]q\x0a0".to_vec();
    for key in 11..60u8 {
        list.extend(
            [
                b"](h".as_slice(),
                &[key - 1],
                b"h",
                &[key - 1],
                b"eq",
                &[key],
                b"0",
            ]
            .concat(),
        );
    }
    let state = [
        b"}(X\x0b\0\0\0_parameters}X\x01\0\0\0wh\x02sX\x08\0\0\0_modules}X\x0a\0\0\0_init_argsh\x3bu".as_slice(),
    ]
    .concat();
    let network = [
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}(X\x04\0\0\0typeX\x05\0\0\0classX\x0a\0\0\0class_nameX\x01\0\0\0EX\x05\0\0\0state".as_slice(),
        &state,
        b"u\x85R",
    ]
    .concat();
    let arguments = [load, &storage, &tensor, &list, &network].concat();
    let one = [
        load,
        &storage,
        &tensor,
        &module(10, b"X\x01\0\0\0wh\x02", b""),
    ]
    .concat();
    let state = read_bytes("one", &pickle(&[&one]), &ReadOptions::default()).unwrap();
    assert_eq!(
        state.get("w").unwrap().to_vec1::<f32>().unwrap(),
        [1.0, 2.0]
    );
    for (what, body, words) in [
        (
            "one storage loaded again and again",
            [load, &storage, &again, b"N"].concat(),
            "bare pickle",
        ),
        ("modules that double", doubling, "too deeply"),
        ("a module inside itself", cycle, "too deeply"),
        ("modules in modules", deep, "too deeply"),
        (
            "names that are longer than the file",
            named,
            "more than the file",
        ),
        (
            "arguments that double",
            arguments,
            "arguments of its constructor",
        ),
    ] {
        let bytes = pickle(&[&body]);
        let started = std::time::Instant::now();
        let (result, peak) =
            memory.peak_of(|| read_bytes(what, &bytes, &ReadOptions::default()).map(drop));
        let text = result.unwrap_err().to_string();
        assert!(text.contains(words), "{what}: {text}");
        assert!(text.len() < 4000, "{what}: {text}");
        assert!(peak < 16 * bytes.len() + (64 << 20), "{what}: {peak} bytes");
        assert!(started.elapsed().as_secs_f64() < 5.0, "{what}");
    }
}
