//! The binding of the data plane to Python. It only converts.
//!
//! Owns: `shoal._core`, whose contract is `src/shoal/_core.pyi`. Specs are read by attribute and copied; results are
//! copied out. The core never holds a Python object, and the interpreter's lock is released in every call that waits.

mod convert;
mod facts;
mod proxy;
mod ring;

use pyo3::prelude::*;

/// The module.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<proxy::Proxy>()?;
    module.add_class::<proxy::Event>()?;
    module.add_class::<proxy::Sample>()?;
    module.add_class::<proxy::ShardStatus>()?;
    module.add_class::<proxy::TlsStatus>()?;
    module.add_class::<facts::MetricDeclaration>()?;
    module.add_class::<ring::Ring>()?;
    module.add_function(wrap_pyfunction!(ring::hash_of, module)?)?;
    module.add_function(wrap_pyfunction!(facts::metric_declarations, module)?)?;
    module.add_function(wrap_pyfunction!(facts::histogram_bounds_us, module)?)?;
    module.add_function(wrap_pyfunction!(facts::limits, module)?)?;
    module.add_function(wrap_pyfunction!(facts::errors, module)?)?;
    module.add_function(wrap_pyfunction!(facts::commands, module)?)?;
    module.add_function(wrap_pyfunction!(facts::text_commands, module)?)?;
    module.add_function(wrap_pyfunction!(facts::check_client_tls, module)?)?;
    module.add_function(wrap_pyfunction!(facts::check_server_tls, module)?)?;
    module.add_function(wrap_pyfunction!(facts::check_affinity, module)?)?;
    module.add_function(wrap_pyfunction!(facts::check_acl, module)?)?;
    module.add_function(wrap_pyfunction!(facts::locate, module)?)?;
    module.add_function(wrap_pyfunction!(facts::version, module)?)?;
    Ok(())
}
