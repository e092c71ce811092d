//! The socket path: a Service's address in, an endpoint's out, and back for
//! whoever asks who the peer is.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_get_current_ancestor_cgroup_id, bpf_get_netns_cookie, bpf_set_retval};
use aya_ebpf::programs::SockAddrContext;
use berth_abi::maps::{OPT_OUT_DEPTH, SOME_CGROUP_OPTED_OUT, SOME_OPTED_OUT};
use berth_abi::{Addr, ClientKey, Counter, Frontend, Scope, Translation};

use crate::{choose, maps, netns};

const IPPROTO_UDP: u32 = 17;
const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;
/// What a local firewall's refusal is to connect(2).
const EACCES: i32 = 13;

/// One of the two shapes of `struct bpf_sock_addr`.
pub(crate) trait Family {
    /// The address in the system call.
    fn address(ctx: &SockAddrContext) -> Addr;
    /// Exchanges it.
    fn set_address(ctx: &SockAddrContext, address: Addr);
}

/// AF_INET.
pub(crate) struct V4;
/// AF_INET6, IPv4-mapped addresses included.
pub(crate) struct V6;

impl Family for V4 {
    #[inline(always)]
    fn address(ctx: &SockAddrContext) -> Addr {
        // SAFETY: the kernel gives a valid context for the program's run.
        Addr::from_v4_be(unsafe { (*ctx.sock_addr).user_ip4 })
    }

    #[inline(always)]
    fn set_address(ctx: &SockAddrContext, address: Addr) {
        // SAFETY: as above.
        unsafe { (*ctx.sock_addr).user_ip4 = address.v4_be().unwrap_or(0) };
    }
}

impl Family for V6 {
    #[inline(always)]
    fn address(ctx: &SockAddrContext) -> Addr {
        // SAFETY: as above. The kernel allows reads and writes of eight octets
        // here (bpf_ctx_wide_access_ok), at a constant offset from the context.
        let halves = unsafe { &raw const (*ctx.sock_addr).user_ip6 }.cast::<u64>();
        // SAFETY: sixteen octets, aligned to eight in the context.
        unsafe {
            Addr {
                high: halves.read_volatile(),
                low: halves.add(1).read_volatile(),
            }
        }
    }

    #[inline(always)]
    fn set_address(ctx: &SockAddrContext, address: Addr) {
        // SAFETY: as above.
        let halves = unsafe { &raw mut (*ctx.sock_addr).user_ip6 }.cast::<u64>();
        // SAFETY: as above.
        unsafe {
            halves.write_volatile(address.high);
            halves.add(1).write_volatile(address.low);
        }
    }
}

#[inline(always)]
fn port_be(ctx: &SockAddrContext) -> u16 {
    // SAFETY: as above. The port is in the low half, in network byte order.
    unsafe { (*ctx.sock_addr).user_port as u16 }
}

#[inline(always)]
fn set_port_be(ctx: &SockAddrContext, port_be: u16) {
    // SAFETY: as above.
    unsafe { (*ctx.sock_addr).user_port = u32::from(port_be) };
}

#[inline(always)]
fn protocol(ctx: &SockAddrContext) -> u32 {
    // SAFETY: as above.
    unsafe { (*ctx.sock_addr).protocol }
}

/// Why a system call ends at once with an error.
#[derive(Clone, Copy)]
pub(crate) enum Refusal {
    /// The Service has no usable endpoint.
    NoEndpoints,
    /// Its endpoints are on other nodes and its traffic policy is Local.
    NoLocalEndpoints,
    /// The client is outside of the Service's source ranges.
    NotAllowed,
}

impl Refusal {
    /// Sets the errno that the caller sees, counts, and returns `verdict`.
    #[inline(always)]
    pub(crate) fn deny(self, verdict: i32) -> i32 {
        let (errno, counter) = match self {
            Self::NoEndpoints => (ECONNREFUSED, Counter::NoEndpoints),
            Self::NoLocalEndpoints => (EHOSTUNREACH, Counter::NoLocalEndpoints),
            Self::NotAllowed => (EACCES, Counter::NotAllowed),
        };
        maps::count(counter);
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_set_retval(-errno) };
        verdict
    }
}

/// connect(): TCP, and UDP that will send without naming an address.
#[inline(always)]
pub(crate) fn connect<F: Family>(ctx: &SockAddrContext) -> Result<(), Refusal> {
    let Some(translation) = translate::<F>(ctx)? else {
        // A UDP socket can be connected again, to something that is no
        // Service. A TCP socket cannot.
        if protocol(ctx) == IPPROTO_UDP
            && let Some(stale) = maps::connected(ctx)
        {
            // A port of 0 equals no peer's. Clearing it all would be a call
            // to memset, which the verifier does not take.
            stale.backend_port_be = 0;
        }
        return Ok(());
    };
    match maps::connected_or_new(ctx) {
        Some(remembered) => *remembered = translation,
        None => maps::count(Counter::NotRemembered),
    }
    apply::<F>(ctx, translation.backend, translation.backend_port_be);
    maps::count(Counter::Connected);
    Ok(())
}

/// sendto() and sendmsg() of a UDP socket, with an address in the call.
#[inline(always)]
pub(crate) fn sendmsg<F: Family>(ctx: &SockAddrContext) -> Result<(), Refusal> {
    let Some(translation) = translate::<F>(ctx)? else {
        return Ok(());
    };
    match maps::datagram_peers_or_new(ctx) {
        Some(known) => {
            let is_known = known.peers.iter().any(|peer| {
                peer.backend == translation.backend
                    && peer.backend_port_be == translation.backend_port_be
                    && peer.frontend == translation.frontend
                    && peer.frontend_port_be == translation.frontend_port_be
            });
            if !is_known {
                // A power of two, so that the verifier sees the bound.
                let entry = known.next as usize & (known.peers.len() - 1);
                known.peers[entry] = translation;
                known.next = known.next.wrapping_add(1);
            }
        }
        None => maps::count(Counter::NotRemembered),
    }
    apply::<F>(ctx, translation.backend, translation.backend_port_be);
    maps::count(Counter::Datagram);
    Ok(())
}

/// recvfrom() and recvmsg() of a UDP socket: the sender, if it is an endpoint
/// that this socket reached through a Service, is shown as the Service.
#[inline(always)]
pub(crate) fn recvmsg<F: Family>(ctx: &SockAddrContext) {
    let (sender, sender_port_be) = (F::address(ctx), port_be(ctx));
    if let Some(known) = maps::datagram_peers(ctx) {
        for peer in &known.peers {
            if peer.backend == sender && peer.backend_port_be == sender_port_be {
                return reverse::<F>(ctx, peer.frontend, peer.frontend_port_be);
            }
        }
    }
    getpeername::<F>(ctx);
}

/// getpeername(), and recvmsg() of a connected UDP socket.
#[inline(always)]
pub(crate) fn getpeername<F: Family>(ctx: &SockAddrContext) {
    let (peer, peer_port_be) = (F::address(ctx), port_be(ctx));
    if let Some(known) = maps::connected(ctx)
        && known.backend == peer
        && known.backend_port_be == peer_port_be
    {
        reverse::<F>(ctx, known.frontend, known.frontend_port_be);
    }
}

#[inline(always)]
fn reverse<F: Family>(ctx: &SockAddrContext, frontend: Addr, frontend_port_be: u16) {
    // An unused entry is all zero and never equals a peer that has a port.
    if frontend_port_be == 0 {
        return;
    }
    apply::<F>(ctx, frontend, frontend_port_be);
    maps::count(Counter::Reversed);
}

#[inline(always)]
fn apply<F: Family>(ctx: &SockAddrContext, address: Addr, port_be: u16) {
    F::set_address(ctx, address);
    set_port_be(ctx, port_be);
}

/// The endpoint for the address in the call, if that is a Service's.
#[inline(always)]
fn translate<F: Family>(ctx: &SockAddrContext) -> Result<Option<Translation>, Refusal> {
    let asked = F::address(ctx);
    let asked_port_be = port_be(ctx);
    let found = maps::frontend(
        asked,
        asked_port_be,
        protocol(ctx) as u8,
        Scope::Socket as u8,
    );
    let Some(frontend) = found else {
        return Ok(None);
    };
    // A NodePort is on the node's loopback; a pod's loopback is the pod's own.
    // SAFETY: the context is valid while the program runs.
    if netns::is_loopback(asked) && !unsafe { netns::is_hosts(ctx.as_ptr()) } {
        return Ok(None);
    }
    if has_opted_out(ctx) {
        return Ok(None);
    }
    if frontend.flags & Frontend::RESTRICTED != 0 && !is_client(ctx, frontend.service) {
        return Err(Refusal::NotAllowed);
    }
    if frontend.slot_count == 0 {
        return Err(if frontend.flags & Frontend::LOCAL_ONLY != 0 {
            Refusal::NoLocalEndpoints
        } else {
            Refusal::NoEndpoints
        });
    }
    let Some(backend) = choose::backend(&frontend, Scope::Socket, || netns_client(ctx)) else {
        maps::count(Counter::BrokenSlot);
        return Err(Refusal::NoEndpoints);
    };
    Ok(Some(Translation {
        frontend: asked,
        backend: backend.address,
        frontend_port_be: asked_port_be,
        backend_port_be: backend.port_be,
        service: frontend.service,
    }))
}

/// Whether the socket is to be left alone: its namespace, or a cgroup that its
/// process is in, has opted out. Costs one array lookup while nobody has.
#[inline(always)]
fn has_opted_out(ctx: &SockAddrContext) -> bool {
    let settings = maps::settings();
    if settings & SOME_OPTED_OUT != 0 && is_client(ctx, ClientKey::OPTED_OUT) {
        return true;
    }
    if settings & SOME_CGROUP_OPTED_OUT != 0 {
        for level in 1..=OPT_OUT_DEPTH {
            // SAFETY: the helper has no preconditions; 0 is "not that deep".
            let cgroup = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
            if cgroup == 0 {
                break;
            }
            if maps::is_client(&ClientKey::new(cgroup, ClientKey::OPTED_OUT_CGROUP)) {
                return true;
            }
        }
    }
    false
}

/// Whether the socket's namespace has an entry for `service`.
#[inline(always)]
fn is_client(ctx: &SockAddrContext, service: u32) -> bool {
    maps::is_client(&ClientKey::new(netns_cookie(ctx), service))
}

/// On the socket path a client is its network namespace: one pod.
#[inline(always)]
fn netns_client(ctx: &SockAddrContext) -> Addr {
    Addr {
        high: 0,
        low: netns_cookie(ctx),
    }
}

#[inline(always)]
fn netns_cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the context is valid while the program runs.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}
