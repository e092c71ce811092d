//! The file that tells a client where the API server is and who the client is.

use std::path::Path;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::pki::{Authority, Identity, write_private};

/// Writes a kubeconfig that needs no other file (mode 0600).
pub(crate) fn write(
    path: &Path,
    url: &str,
    authority: &Authority,
    identity: &Identity,
) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "berth",
            "cluster": {
                "server": url,
                "certificate-authority-data": STANDARD.encode(authority.certificate()),
            },
        }],
        "users": [{
            "name": "berth",
            "user": {
                "client-certificate-data": STANDARD.encode(&identity.certificate),
                "client-key-data": STANDARD.encode(&identity.key),
            },
        }],
        "contexts": [{"name": "berth", "context": {"cluster": "berth", "user": "berth"}}],
        "current-context": "berth",
    });
    write_private(path, &format!("{config:#}\n"))
}
