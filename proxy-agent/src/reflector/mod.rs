//! From objects to the model. The only room that knows the shape of
//! Kubernetes' API; it must not know what a map is.
//!
//! [`decode`] and [`pods`] read one object; [`folder`] keeps up with a folder of YAML and
//! [`kube`] with an API server; both feed the same model. A bad object refuses only itself, with a warning that names it, and what it
//! said before stays.

pub mod decode;
pub mod folder;
pub mod kube;
pub mod pods;
