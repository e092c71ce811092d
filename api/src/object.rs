//! One Kubernetes object as it came in, before anybody believes it.

use std::fmt;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Which object: kind, namespace and name. Cluster-wide kinds have an empty
/// namespace. Ordered by kind, then namespace, then name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// `Service`, `EndpointSlice`, `IPPool`, ...
    pub kind: String,
    /// Empty for cluster-wide kinds.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// Where an object was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The file; empty for objects that came from an API server.
    pub file: PathBuf,
    /// The line on which the object's document starts, from 1.
    pub line: usize,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One object as read: known by its key, its content not yet looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Kind, namespace and name.
    pub key: ObjectKey,
    /// `v1`, `discovery.k8s.io/v1`, `berth.dev/v1alpha1`, ...
    pub api_version: String,
    /// Where it was read.
    pub source: Source,
    /// The whole object.
    pub value: Value,
}

impl Object {
    /// Reads the object as a `T`.
    ///
    /// # Errors
    /// Names the file, the object and the field that does not fit.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Rejected> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let field = error.path().to_string();
            self.reject(field, error.into_inner().to_string(), "correct this field")
        })
    }

    /// A refusal of this object for what `field` holds.
    pub fn reject(
        &self,
        field: impl Into<String>,
        problem: impl Into<String>,
        mend: impl Into<String>,
    ) -> Rejected {
        Rejected {
            at: self.source.clone(),
            object: Some(self.key.clone()),
            field: field.into(),
            problem: problem.into(),
            mend: mend.into(),
        }
    }
}

/// One object, or one file, that was refused. Everything else is served.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub struct Rejected {
    /// Where it stands.
    pub at: Source,
    /// Which object, as far as that could be read.
    pub object: Option<ObjectKey>,
    /// The field, such as `spec.ports[0].port`; empty if it is the whole object.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub mend: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.at.file.as_os_str().is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() && self.field != "." {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.problem, self.mend)
    }
}
