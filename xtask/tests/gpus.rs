//! What `cargo xtask` gives to the build of a program for GPUs. Scripts stand for cargo and for NVIDIA's compiler.
#![cfg(target_os = "linux")]

use std::fs::{Permissions, create_dir_all, read_to_string, remove_file, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn script(path: &Path, text: &str) {
    create_dir_all(path.parent().unwrap()).unwrap();
    write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// What `xtask train --device cuda` prints, and the arguments and variables of the cargo that it starts. That cargo fails to build.
fn train(root: &Path) -> (String, String) {
    let path = root.join("no programs");
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["train", "--device", "cuda"])
        .env_clear()
        .env("CARGO", root.join("cargo"))
        .env("CARGO_TARGET_DIR", root.join("target"))
        .env("CUDA_HOME", root.join("cuda"))
        .env("PATH", path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let printed = String::from_utf8(output.stderr).unwrap();
    (printed, read_to_string(root.join("started")).unwrap())
}

#[test]
fn a_toolkit_off_the_path_is_used_if_it_is_complete() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path();
    let (cuda, started) = (root.join("cuda"), root.join("started"));
    // No machine has libraries of this version elsewhere.
    script(
        &cuda.join("bin/nvcc"),
        "echo Cuda compilation tools, release 99.0, V99.0.1",
    );
    let variables = "$CUDA_HOME $PATH $LIBRARY_PATH $CUDARC_CUDA_VERSION $CUDA_COMPUTE_CAP";
    let text = format!(
        "echo \"$@ {variables}\" > '{}'; [ $1 = clean ]",
        started.display()
    );
    script(&root.join("cargo"), &text);
    for name in [
        "cuda", "cudart", "nvrtc", "cublas", "cublasLt", "curand", "cudnn",
    ] {
        let library = cuda.join(format!("lib64/lib{name}.so"));
        create_dir_all(library.parent().unwrap()).unwrap();
        write(library, "").unwrap();
    }
    let (_, started) = train(root);
    let place = |part: &str| root.join(part).display().to_string();
    for part in [
        "rustc",
        "--features cuda",
        &format!("-Wl,-rpath,{}", place("cuda/lib64")),
        &place("cuda"),
        &format!("{}:{}", place("cuda/bin"), place("no programs")),
        &place("target/cuda-libraries"),
        "13040",
        "80",
    ] {
        assert!(started.contains(part), "{part}: {started}");
    }
    assert!(root.join("target/cuda-libraries/libcudnn.so").is_symlink());

    remove_file(cuda.join("lib64/libcublas.so")).unwrap();
    let (printed, started) = train(root);
    let note = printed.lines().next().unwrap();
    assert!(
        note.contains("building for the CPU")
            && note.contains("has no libcublas")
            && note.contains("pip install nvidia-cublas~=99.0"),
        "{printed}"
    );
    assert!(
        started.starts_with("build ") && !started.contains("--features"),
        "{started}"
    );
}
