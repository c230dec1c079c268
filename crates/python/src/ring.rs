//! The ring of one keyspace, for Python: where keys go, without a proxy.

use crate::convert::{keyspace, KeyspaceSpec};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shoal_core::routing::distribution::Group;
use shoal_core::routing::key_hash::KeyHash;
use shoal_core::routing::topology::Keyspace;

type Place<'py> = (Bound<'py, PyBytes>, &'static str, Option<u64>, Option<u16>);

/// See `_core.pyi`.
#[pyclass(frozen, module = "shoal._core")]
pub struct Ring {
    keyspace: Keyspace,
}

#[pymethods]
impl Ring {
    #[new]
    fn new(keyspace_spec: KeyspaceSpec) -> PyResult<Self> {
        Ok(Self {
            keyspace: keyspace(keyspace_spec)?,
        })
    }

    fn locate<'py>(&self, py: Python<'py>, key: &[u8]) -> Place<'py> {
        let part = PyBytes::new(py, self.keyspace.part(key));
        let (word, number) = match self.keyspace.group(key) {
            Group::Slot(slot) => ("slot", Some(u64::from(slot))),
            Group::Hash(hash) => ("hash", Some(hash)),
            Group::Key => ("key", None),
        };
        let shard = self.keyspace.owner_of(key);
        (part, word, number, shard)
    }

    fn shards_of(&self, py: Python<'_>, keys: Vec<Vec<u8>>) -> Vec<Option<u16>> {
        py.detach(|| keys.iter().map(|key| self.keyspace.owner_of(key)).collect())
    }

    fn shares(&self) -> Option<Vec<f64>> {
        let shards = self.keyspace.shards.len();
        self.keyspace.distribution.shares(shards)
    }
}

#[pyfunction]
pub fn hash_of(name: &str, key: &[u8], signed_char: bool) -> PyResult<u32> {
    KeyHash::named(name)
        .map(|hash| hash.of(key, signed_char))
        .ok_or_else(|| PyValueError::new_err(format!("no such hash function: {name}")))
}
