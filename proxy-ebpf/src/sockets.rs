//! Which sockets Berth translated: an iterator over the map `CONNECTED`
//! (`bpf_sk_storage_map`, Linux 5.9), that is over the sockets of every network
//! namespace that have an entry.
//!
//! sock_diag could list a socket with its entry, but does so for TCP alone.
//! Nothing of the kernel's `struct sock` is read, so nothing depends on its
//! layout: the cookie is enough to find the socket in a list.

use core::ffi::c_void;

use aya_ebpf::btf_maps::RingBuf;
use aya_ebpf::helpers::bpf_get_socket_cookie;
use aya_ebpf::macros::btf_map;
use berth_abi::maps::TRANSLATED_BYTES;
use berth_abi::{TranslatedSocket, Translation};

#[btf_map]
static TRANSLATED: RingBuf<TranslatedSocket, { TRANSLATED_BYTES as usize }> = RingBuf::new();

/// On to the next socket.
const NEXT: i32 = 0;
/// Stop here, and begin with this socket again.
const AGAIN: i32 = 1;

/// `struct bpf_iter__bpf_sk_storage_map` of the kernel.
#[repr(C)]
pub struct Visit {
    meta: *const c_void,
    map: *const c_void,
    socket: *mut c_void,
    value: *const Translation,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub extern "C" fn translated(visit: *const Visit) -> i32 {
    // SAFETY: the kernel gives a valid context for the program's run.
    let (socket, value) = unsafe { ((*visit).socket, (*visit).value) };
    // The last visit is to nobody.
    if socket.is_null() || value.is_null() {
        return NEXT;
    }
    // SAFETY: not null, and of the map's value size.
    let translation = unsafe { *value };
    let told = TranslatedSocket {
        // SAFETY: a socket that the iterator holds.
        cookie: unsafe { bpf_get_socket_cookie(socket) },
        translation,
    };
    match TRANSLATED.output(told, 0) {
        Ok(()) => NEXT,
        Err(_) => AGAIN,
    }
}
