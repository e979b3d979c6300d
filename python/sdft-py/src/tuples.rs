//! Results with several numbers: named tuples.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

const MODULE: &str = "sdft_py";

/// The type of the result of `kid`.
pub(crate) const KID: &str = "Kid";

/// The type of the result of `precision_recall`.
pub(crate) const PRECISION_RECALL: &str = "PrecisionRecall";

/// Creates the types in the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let named_tuple = module.py().import("collections")?.getattr("namedtuple")?;
    for (name, fields) in [
        (KID, "mean std"),
        (PRECISION_RECALL, "precision recall density coverage"),
    ] {
        let class = named_tuple.call1((name, fields))?;
        class.setattr("__module__", MODULE)?;
        module.add(name, class)?;
    }
    Ok(())
}

/// Makes a tuple of one of the types.
pub(crate) fn make<'py>(
    py: Python<'py>,
    name: &str,
    values: impl IntoIterator<Item = f64, IntoIter: ExactSizeIterator>,
) -> PyResult<Bound<'py, PyAny>> {
    let values = PyTuple::new(py, values)?;
    py.import(MODULE)?.getattr(name)?.call1(values)
}
