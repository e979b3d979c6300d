//! Notes of the library for Python's logging.

use pyo3::prelude::*;

/// Passes notes to the logger `sdft_py` as messages of level INFO, which Python shows only on request.
pub(crate) fn notes(py: Python<'_>, notes: &[String]) -> PyResult<()> {
    if notes.is_empty() {
        return Ok(());
    }
    let logger = py
        .import("logging")?
        .call_method1("getLogger", ("sdft_py",))?;
    for note in notes {
        logger.call_method1("info", ("%s", note))?;
    }
    Ok(())
}
