//! What the core knows of itself: metrics, limits, errors, commands, and where a key goes.

use crate::convert::{client_tls, server_tls, ClientTlsSpec, ServerTlsSpec};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shoal_core::error::ERRORS;
use shoal_core::limits::LIMITS;
use shoal_core::net::tls_files::{of_clients, of_servers, FileError, Loaded};
use shoal_core::protocol::command::{CommandSpec, Policy};
use shoal_core::protocol::command_table::COMMANDS;
use shoal_core::protocol::memcached::command as memcached;
use shoal_core::routing::acl::Acl;
use shoal_core::routing::affinity::{hashed_part, Affinity};
use shoal_core::routing::hash::crc16;
use shoal_core::routing::tag::Tag;
use shoal_core::session::stats::{Kind, BOUNDS_US, METRICS};

/// See `_core.pyi`.
#[pyclass(frozen, get_all, module = "shoal._core")]
pub struct MetricDeclaration {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    labels: Vec<&'static str>,
}

#[pyfunction]
pub fn metric_declarations() -> Vec<MetricDeclaration> {
    METRICS
        .iter()
        .map(|metric| MetricDeclaration {
            name: metric.name,
            kind: match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            },
            help: metric.help,
            labels: metric.scope.labels().to_vec(),
        })
        .collect()
}

#[pyfunction]
pub fn histogram_bounds_us() -> Vec<u64> {
    BOUNDS_US.to_vec()
}

#[pyfunction]
pub fn limits() -> Vec<(&'static str, u64, &'static str, &'static str)> {
    LIMITS
        .iter()
        .map(|limit| (limit.name, limit.value, limit.unit, limit.reason))
        .collect()
}

#[pyfunction]
pub fn errors() -> Vec<(&'static str, &'static str)> {
    ERRORS.to_vec()
}

#[pyfunction]
pub fn commands() -> Vec<(&'static str, String, String, &'static str)> {
    let mut rows = Vec::new();
    for spec in &COMMANDS {
        if spec.policy != Policy::Container {
            rows.push(row(spec));
        }
        rows.extend(spec.subcommands.iter().map(row));
    }
    rows
}

#[pyfunction]
pub fn text_commands() -> Vec<(&'static str, &'static str)> {
    memcached::COMMANDS
        .iter()
        .map(|command| (command.name, command.note))
        .collect()
}

fn row(spec: &CommandSpec) -> (&'static str, String, String, &'static str) {
    let (policy, refusal) = match spec.policy {
        Policy::Keyed => ("keyed".to_string(), ""),
        Policy::Script { .. } => ("script".to_string(), ""),
        Policy::Split { merge, .. } => (format!("split, {}", words(&format!("{merge:?}"))), ""),
        Policy::AllShards(merge) => (format!("all shards, {}", words(&format!("{merge:?}"))), ""),
        Policy::AllKeys(what) => (format!("all keys, {}", words(&format!("{what:?}"))), ""),
        Policy::AnyShard => ("any shard".to_string(), ""),
        Policy::Aside(merge) => (
            format!("all shards aside, {}", words(&format!("{merge:?}"))),
            "",
        ),
        Policy::Scan => ("scan".to_string(), ""),
        Policy::Settings => ("all shards".to_string(), ""),
        Policy::Debug => ("debug".to_string(), ""),
        Policy::ScriptLoad | Policy::ScriptFlush | Policy::Wait => ("all shards".to_string(), ""),
        Policy::Blocking(_) => ("blocking".to_string(), ""),
        Policy::Local(_) => ("local".to_string(), ""),
        Policy::Container => ("container".to_string(), ""),
        Policy::Refuse(reason) => ("refused".to_string(), reason),
    };
    (
        spec.full_name,
        policy,
        words(&format!("{:?}", spec.grade)),
        refusal,
    )
}

/// `PerShard` as `per-shard`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push('-');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

fn verdict<C>(loaded: Result<Loaded<C>, FileError>) -> (&'static str, String, Option<u64>) {
    match loaded {
        Ok(loaded) => ("", String::new(), loaded.expires),
        Err(error) => (error.setting, error.text, None),
    }
}

#[pyfunction]
pub fn check_client_tls(spec: ClientTlsSpec) -> PyResult<(&'static str, String, Option<u64>)> {
    let wish = client_tls(spec).map_err(PyValueError::new_err)?;
    Ok(verdict(of_clients(&wish)))
}

#[pyfunction]
pub fn check_server_tls(spec: ServerTlsSpec) -> PyResult<(&'static str, String, Option<u64>)> {
    let wish = server_tls(spec).map_err(PyValueError::new_err)?;
    Ok(verdict(of_servers(&wish)))
}

#[pyfunction]
pub fn check_affinity(pattern: String) -> Option<String> {
    Affinity::new(&[pattern]).err().map(|error| error.reason)
}

#[pyfunction]
pub fn check_acl(rules: &str) -> (String, String, bool) {
    match Acl::parse(rules) {
        Ok(acl) => (String::new(), String::new(), acl.scripts_escape()),
        Err(error) => (error.rule, error.reason, false),
    }
}

#[pyfunction]
pub fn locate<'py>(
    py: Python<'py>,
    key: &[u8],
    affinity: Vec<String>,
) -> PyResult<(Bound<'py, PyBytes>, u16)> {
    let rules =
        Affinity::new(&affinity).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let part = hashed_part(&rules, Tag::BRACES, key);
    Ok((PyBytes::new(py, part), crc16(part) & 16383))
}

#[pyfunction]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
