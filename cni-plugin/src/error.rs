//! What a runtime is told when something is wrong.

use serde_json::json;

/// The `code` of a CNI error. 1 to 11, 50 and 51 are the specification's
/// (version 1.1.0, section 5); from 100 on they are Berth's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 1: the CNI version asked for is not spoken.
    IncompatibleVersion = 1,
    /// 2: a field of the configuration asks for what is not there.
    UnsupportedField = 2,
    /// 3: CHECK: the attachment is not known.
    UnknownContainer = 3,
    /// 4: an environment variable is missing or malformed.
    InvalidEnvironment = 4,
    /// 5: a file cannot be read or written.
    Io = 5,
    /// 6: stdin, or an object in the folder, is not what it should be.
    Decode = 6,
    /// 7: the network configuration is malformed.
    InvalidConfig = 7,
    /// 8: CNI_NETNS is not a network namespace, or this program's own.
    InvalidNetns = 8,
    /// 11: the same call may succeed a little later.
    TryAgain = 11,
    /// 50: STATUS: no ADD can work now.
    Unavailable = 50,
    /// 100: no pool can be used: unknown, refused, or no default.
    Pool = 100,
    /// 101: an annotation cannot be read or kept to.
    Annotation = 101,
    /// 102: the fixed address is another's.
    AddressTaken = 102,
    /// 103: the fixed address is in no pool.
    OutsidePools = 103,
    /// 104: no address is left.
    Exhausted = 104,
    /// 105: the store of allocations failed.
    Store = 105,
    /// 106: the kernel refused; what was done has been undone.
    Kernel = 106,
    /// 107: the node has no interface for the pool.
    Parent = 107,
    /// 108: CHECK: something is not as ADD left it.
    Changed = 108,
    /// 109: the IPAM plugin that `ipam.type` names failed.
    Delegate = 109,
}

/// One refusal.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    /// Its number.
    pub code: Code,
    /// What is wrong and what to do.
    pub message: String,
    /// More, such as what could not be undone; often empty.
    pub details: String,
}

impl CniError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: String::new(),
        }
    }

    pub(crate) fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The JSON that the specification wants on stdout.
    #[must_use]
    pub fn to_json(&self, cni_version: &str) -> String {
        let mut error = json!({
            "cniVersion": cni_version,
            "code": self.code as u32,
            "msg": self.message,
        });
        if !self.details.is_empty() {
            error["details"] = json!(self.details);
        }
        format!("{error}\n")
    }
}

impl From<berth_ipam::Error> for CniError {
    fn from(error: berth_ipam::Error) -> Self {
        use berth_ipam::Error as Ipam;
        let code = match &error {
            error if error.is_temporary() => Code::TryAgain,
            Ipam::Annotation { .. } => Code::Annotation,
            Ipam::UnknownPool { .. } | Ipam::RefusedPool { .. } | Ipam::NoPool { .. } => Code::Pool,
            Ipam::OutsidePools { .. } => Code::OutsidePools,
            Ipam::Taken { .. } | Ipam::ListTaken { .. } => Code::AddressTaken,
            Ipam::Exhausted { .. } => Code::Exhausted,
            Ipam::Contended { .. } => Code::TryAgain,
            Ipam::Store(_) => Code::Store,
        };
        Self::new(code, error.to_string())
    }
}

impl From<berth_ipam::store::StoreError> for CniError {
    fn from(error: berth_ipam::store::StoreError) -> Self {
        Self::new(Code::Store, error.to_string())
    }
}

impl From<berth_netlink::Error> for CniError {
    fn from(error: berth_netlink::Error) -> Self {
        Self::new(Code::Kernel, error.to_string())
    }
}
