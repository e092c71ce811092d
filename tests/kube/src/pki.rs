//! A certificate authority that lives as long as its cluster.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// Longer than any test, shorter than anybody would find a use for.
const LIFETIME: Duration = Duration::days(2);

/// The authority; its key is never written down.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate and its key, both as PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// The two halves of the key that signs service accounts' tokens, as PEM.
pub(crate) struct TokenKey {
    pub(crate) private: String,
    pub(crate) public: String,
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let mut params = dated(CertificateParams::default());
        params
            .distinguished_name
            .push(DnType::CommonName, "berth-kube");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("make the authority's key")?;
        let certificate = params
            .self_signed(&key)
            .context("sign the authority's certificate")?
            .pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// The authority's own certificate, as PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A server reached by these names and addresses.
    pub(crate) fn server(&self, names: Vec<String>) -> Result<Identity> {
        let params = CertificateParams::new(names).context("name the server")?;
        self.sign(
            params,
            "berth-kube-server",
            &[],
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// A client: `user` and `groups` are what RBAC knows it by.
    pub(crate) fn client(&self, user: &str, groups: &[&str]) -> Result<Identity> {
        let params = CertificateParams::default();
        self.sign(params, user, groups, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(
        &self,
        params: CertificateParams,
        name: &str,
        organizations: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity> {
        let mut params = dated(params);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        // One relative name each, of which rcgen keeps the last only: a client
        // of several groups would lose all but one.
        if let [organization] = organizations {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *organization);
        } else {
            anyhow::ensure!(
                organizations.is_empty(),
                "a certificate holds one group, not {organizations:?}: bind {name} itself"
            );
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().with_context(|| format!("make the key of {name}"))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("sign the certificate of {name}"))?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

impl Identity {
    /// Writes `NAME.crt` and `NAME.key` into `folder`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
        let certificate = folder.join(format!("{name}.crt"));
        let key = folder.join(format!("{name}.key"));
        write_private(&certificate, &self.certificate)?;
        write_private(&key, &self.key)?;
        Ok((certificate, key))
    }
}

impl TokenKey {
    pub(crate) fn new() -> Result<Self> {
        let key = KeyPair::generate().context("make the key of service accounts")?;
        Ok(Self {
            private: key.serialize_pem(),
            public: key.public_key_pem(),
        })
    }
}

fn dated(mut params: CertificateParams) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    // A clock that is set back a little is no reason to fail.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + LIFETIME;
    params
}

/// Writes a file that only its owner can read (0600).
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    // A file that is there keeps its mode, so it is made anew.
    let _ = fs::remove_file(path);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_their_owners() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new().unwrap();
        let identity = authority
            .client("system:node:a", &["system:nodes"])
            .unwrap();
        for path in <[_; 2]>::from(identity.write(folder.path(), "a").unwrap()) {
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
            assert!(fs::read_to_string(path).unwrap().starts_with("-----BEGIN "));
        }
    }

    #[test]
    fn groups_are_not_lost_in_silence() {
        let error = Authority::new().unwrap().client("a", &["b", "c"]);
        assert!(error.is_err());
    }
}
