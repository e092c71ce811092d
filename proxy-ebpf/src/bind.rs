//! A NodePort, or a pod's hostPort, is not the node's own on any address of it,
//! so no process of the node may bind it: it would never be reached. Pods'
//! namespaces have ports of their own and are left alone.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_set_retval;
use aya_ebpf::programs::SockContext;
use berth_abi::{Counter, Scope};

use crate::maps;
use crate::netns::{self, LOOPBACK4, LOOPBACK6};

const EADDRINUSE: i32 = 98;

/// Whether the socket has just bound a NodePort or hostPort in the node's
/// namespace.
#[inline(always)]
pub(crate) fn is_node_port(ctx: &SockContext) -> bool {
    // SAFETY: the kernel gives a valid context for the program's run.
    if !unsafe { netns::is_hosts(ctx.as_ptr()) } {
        return false;
    }
    // SAFETY: as above. The port is in host byte order here.
    let (port, protocol) = unsafe { ((*ctx.sock).src_port as u16, (*ctx.sock).protocol as u8) };
    // Every NodePort and hostPort, and nothing else, has a frontend on loopback. One of
    // either family takes the port: a socket of both would hide it.
    [LOOPBACK4, LOOPBACK6].into_iter().any(|loopback| {
        maps::frontend(loopback, port.to_be(), protocol, Scope::Socket as u8).is_some()
    })
}

/// Sets the errno that bind() ends with, counts, and returns `verdict`.
#[inline(always)]
pub(crate) fn refuse(verdict: i32) -> i32 {
    maps::count(Counter::NodePortBind);
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_set_retval(-EADDRINUSE) };
    verdict
}
