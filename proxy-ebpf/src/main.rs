//! The eBPF programs of the service proxy.
//!
//! Socket hooks: a program at the root of the node's cgroups sees every
//! connect(), sendmsg() and recvmsg() on the node, whatever interface or
//! namespace the socket uses, and exchanges a Service's address for an
//! endpoint's before the first packet exists. Nothing is left to do later.
//! Two more keep the node's own processes from binding a NodePort.
//!
//! An entry here calls one function of [`socket`] and returns its verdict.
#![no_std]
#![no_main]
// The entries are found by section, not by path.
#![expect(unreachable_pub, reason = "the macro needs `pub` entries")]

mod bind;
mod choose;
mod maps;
mod netns;
mod socket;
mod sockets;

use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};

use socket::{Family, V4, V6};

/// Lets the system call go on, with the address as it now is.
const ALLOW: i32 = 1;
/// Ends the system call with the errno that the program set.
const DENY: i32 = 0;

fn connect<F: Family>(ctx: &SockAddrContext) -> i32 {
    match socket::connect::<F>(ctx) {
        Ok(()) => ALLOW,
        Err(refusal) => refusal.deny(DENY),
    }
}

fn sendmsg<F: Family>(ctx: &SockAddrContext) -> i32 {
    match socket::sendmsg::<F>(ctx) {
        Ok(()) => ALLOW,
        Err(refusal) => refusal.deny(DENY),
    }
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect::<V4>(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect::<V6>(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg::<V4>(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg::<V6>(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    socket::recvmsg::<V4>(&ctx);
    ALLOW
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    socket::recvmsg::<V6>(&ctx);
    ALLOW
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    socket::getpeername::<V4>(&ctx);
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    socket::getpeername::<V6>(&ctx);
    ALLOW
}

#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    if bind::is_node_port(&ctx) {
        bind::refuse(DENY)
    } else {
        ALLOW
    }
}

#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    if bind::is_node_port(&ctx) {
        bind::refuse(DENY)
    } else {
        ALLOW
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier proves that no path leads here.
    loop {}
}

// None of the helpers that the programs call is reserved for GPL programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
