//! NVRTC, NVIDIA's compiler as a library.

use crate::architecture::Code;
use crate::versions::Version;
use candle_core::cuda_backend::cudarc::nvrtc::{result, sys};
use candle_core::{Error, Result};
use std::ffi::{CStr, CString};

/// Its version, if it can be asked.
pub(crate) fn version() -> Option<Version> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: two numbers are written.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }
        .result()
        .ok()?;
    Some(Version { major, minor })
}

/// The architectures that it compiles for, as ten times the compute capability; empty if it cannot be asked.
pub(crate) fn supported() -> Vec<i32> {
    let mut n = 0;
    // SAFETY: a number is written.
    if unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut n) }
        .result()
        .is_err()
    {
        return Vec::new();
    }
    let mut all = vec![0; usize::try_from(n).unwrap_or(0)];
    // SAFETY: `n` numbers are written.
    match unsafe { sys::nvrtcGetSupportedArchs(all.as_mut_ptr()) }.result() {
        Ok(()) => all,
        Err(_) => Vec::new(),
    }
}

/// A program of NVRTC, which is destroyed with this.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was created and is not used again. A failure leaks it.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Compiles a source to what a driver loads: machine code, or PTX that ends in a zero.
///
/// # Errors
/// A source that does not compile, with the compiler's log.
pub(crate) fn compile(source: &str, code: Code) -> Result<Vec<u8>> {
    Ok(compile_with(source, code, &[])?.0)
}

/// [`compile`] with further options; also returns the compiler's log.
fn compile_with(source: &str, code: Code, options: &[&str]) -> Result<(Vec<u8>, String)> {
    let name = code.name();
    let failed = |what: &dyn std::fmt::Display| {
        Error::Msg(format!(
            "NVRTC failed to compile kernels for {name}: {what}"
        ))
    };
    let source = CString::new(source).map_err(|error| failed(&error))?;
    let program = Program(result::create_program(&source, None).map_err(|error| failed(&error))?);
    let mut all = vec![format!("--gpu-architecture={name}")];
    all.extend(options.iter().map(|&option| option.to_owned()));
    // SAFETY: the program exists.
    let compiled = unsafe { result::compile_program(program.0, &all) };
    // SAFETY: the program exists.
    let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();
    let log: Vec<u8> = log.into_iter().map(|c| c.to_ne_bytes()[0]).collect();
    let log = CStr::from_bytes_until_nul(&log)
        .map_or_else(|_| String::new(), |log| log.to_string_lossy().into_owned());
    if let Err(error) = compiled {
        return Err(failed(&format_args!("{error}\n{log}")));
    }
    let bytes = match code {
        // SAFETY: the program was compiled to machine code.
        Code::Cubin(_) => unsafe { cubin(&program) }.map_err(|error| failed(&error))?,
        Code::Ptx(_) => {
            // SAFETY: the program was compiled.
            let ptx = unsafe { result::get_ptx(program.0) }.map_err(|error| failed(&error))?;
            ptx.into_iter().map(|c| c.to_ne_bytes()[0]).collect()
        }
    };
    Ok((bytes, log))
}

/// The machine code of a compiled program.
///
/// # Safety
/// The program was compiled for an architecture `sm_XY`.
unsafe fn cubin(program: &Program) -> std::result::Result<Vec<u8>, result::NvrtcError> {
    let mut size = 0;
    // SAFETY: the program exists and a number is written.
    unsafe { sys::nvrtcGetCUBINSize(program.0, &raw mut size) }.result()?;
    let mut bytes = vec![0u8; size];
    // SAFETY: `size` bytes are written.
    unsafe { sys::nvrtcGetCUBIN(program.0, bytes.as_mut_ptr().cast()) }.result()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::{File, source_of};

    /// The kernels that keep registers in memory, by the compiler's report on each.
    fn spilling(log: &str) -> Vec<String> {
        let mut kernel = "";
        let mut found = Vec::new();
        for line in log.lines() {
            if let Some((_, rest)) = line.split_once("Compiling entry function '") {
                kernel = rest.split('\'').next().unwrap_or_default();
            }
            if line.contains("bytes spill stores") && !line.contains(" 0 bytes spill stores") {
                found.push(format!("{kernel}: {}", line.trim()));
            }
        }
        found
    }

    #[test]
    fn every_kernel_compiles_to_machine_code_that_spills_no_registers() {
        let supported = supported();
        let all = [75, 80, 90, 100, 120].into_iter();
        let all: Vec<i32> = all.filter(|n| supported.contains(n)).collect();
        assert!(all.len() > 2, "{supported:?}");
        std::thread::scope(|threads| {
            for file in File::ALL {
                let all = &all;
                threads.spawn(move || {
                    for &n in all {
                        let options = ["--ptxas-options=-v"];
                        let code = Code::Cubin(n);
                        let (code, log) = compile_with(&source_of(file), code, &options).unwrap();
                        assert!(code.starts_with(b"\x7fELF"), "{file:?} for {n}");
                        // Its instructions came with 8.0.
                        let has_kernels = file != File::FusedAttention || n >= 80;
                        let entries = log.contains("Compiling entry function");
                        assert_eq!(entries, has_kernels, "{file:?} for {n}: {log}");
                        assert_eq!(spilling(&log), [""; 0], "{file:?} for {n}");
                    }
                });
            }
        });
    }

    #[test]
    fn later_gpus_get_ptx_and_errors_have_the_compilers_log() {
        let ptx = compile(&source_of(File::Rows), Code::Ptx(80)).unwrap();
        assert!(ptx.windows(8).any(|text| text == b".version") && ptx.ends_with(&[0]));
        let error = compile("not a kernel", Code::Cubin(80)).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("sm_80") && error.contains("error:"),
            "{error}"
        );
    }
}
