//! The node's own network namespace, as opposed to those of its pods.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::bpf_get_netns_cookie;
use berth_abi::Addr;

pub(crate) const LOOPBACK4: Addr = Addr::from_v4_be(u32::from_ne_bytes([127, 0, 0, 1]));
pub(crate) const LOOPBACK6: Addr = Addr {
    high: 0,
    low: 1_u64.to_be(),
};

/// The cookie of the node's own network namespace, set when the program is
/// loaded; 0 matches none.
#[unsafe(no_mangle)]
static HOST_NETNS: Global<u64> = Global::new(0);

/// Whether the socket of this context is in the node's own namespace.
///
/// # Safety
/// `ctx` is the context of a program that runs for a socket.
#[inline(always)]
pub(crate) unsafe fn is_hosts(ctx: *mut c_void) -> bool {
    // SAFETY: as the caller says.
    let cookie = unsafe { bpf_get_netns_cookie(ctx) };
    cookie == HOST_NETNS.load()
}

/// Whether this address is, in each namespace, the namespace's own.
#[inline(always)]
pub(crate) fn is_loopback(address: Addr) -> bool {
    address == LOOPBACK4 || address == LOOPBACK6
}
