//! Arguments for macOS's linker, which otherwise looks for the symbols of Python.

fn main() {
    pyo3_build_config::add_extension_module_link_args();
}
