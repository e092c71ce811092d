//! The raw system calls that aya does not have: batches, links, mapped arrays.
//! Every `unsafe` of the agent is in this file.
//!
//! The structures are the members of `union bpf_attr` (linux/bpf.h, stable
//! ABI) that the commands read.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering, fence};

const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_ITER_CREATE: libc::c_int = 33;
/// `enum bpf_attach_type`.
const BPF_TRACE_ITER: u32 = 28;

/// Calls bpf(2) with one command's attributes.
fn bpf<A>(command: libc::c_int, attr: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a live, fully initialised structure of the given size,
    // and every pointer in it outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<A>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    let fd = i32::try_from(fd).expect("file descriptors have 31 bits");
    // SAFETY: the kernel has just given us this descriptor, and nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// The cookie of this thread's network namespace: unique on this kernel, and
/// what a program sees as the namespace of a socket (Linux 5.14).
pub(super) fn netns_cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    let socket = owned(socket.into());
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).expect("eight");
    // SAFETY: `cookie` and `length` are live and of the size that is said.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[repr(C)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens what is pinned at `path`.
pub(super) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    bpf(BPF_OBJ_GET, &mut attr).map(owned)
}

/// Pins a map, program or link at `path`.
pub(super) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: raw(fd),
        file_flags: 0,
    };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

#[repr(C)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to a cgroup. Several programs may be attached at once.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: raw(program),
        target_fd: raw(cgroup),
        attach_type,
        flags: 0,
    };
    bpf(BPF_LINK_CREATE, &mut attr).map(owned)
}

#[repr(C)]
struct LinkIteratorAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    padding: u32,
}

/// `union bpf_iter_link_info`, for the iterators over a map.
#[repr(C)]
struct IteratorInfo {
    map_fd: u32,
    padding: [u32; 3],
}

/// Binds an iterator program to the map that it iterates over.
pub(super) fn link_iterator(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let info = IteratorInfo {
        map_fd: raw(map),
        padding: [0; 3],
    };
    let mut attr = LinkIteratorAttr {
        prog_fd: raw(program),
        target_fd: 0,
        attach_type: BPF_TRACE_ITER,
        flags: 0,
        iter_info: &raw const info as u64,
        iter_info_len: u32::try_from(size_of::<IteratorInfo>()).expect("a small structure"),
        padding: 0,
    };
    bpf(BPF_LINK_CREATE, &mut attr).map(owned)
}

#[repr(C)]
struct IteratorAttr {
    link_fd: u32,
    flags: u32,
}

/// One walk of an iterator: reading the file runs the program.
pub(super) fn iterator(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = IteratorAttr {
        link_fd: raw(link),
        flags: 0,
    };
    bpf(BPF_ITER_CREATE, &mut attr).map(owned)
}

#[repr(C)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Exchanges the program of a link, with no moment without one.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link_fd: raw(link),
        new_prog_fd: raw(program),
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
}

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The head of `struct bpf_link_info`, for a cgroup's link.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    cgroup_id: u64,
    attach_type: u32,
    padding2: u32,
}

/// The id (on cgroup2: the inode) of the cgroup that a link is attached to.
/// 0 once that cgroup is gone.
pub(super) fn link_cgroup_id(link: BorrowedFd<'_>) -> io::Result<u64> {
    let mut info = LinkInfo::default();
    let mut attr = InfoAttr {
        bpf_fd: raw(link),
        info_len: u32::try_from(size_of::<LinkInfo>()).expect("a small structure"),
        info: &raw mut info as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info.cgroup_id)
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Writes entries in order. Returns how many were written before the first
/// that could not be, and why that could not.
pub(super) fn update_batch<K, V>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> (usize, io::Result<()>) {
    assert_eq!(keys.len(), values.len(), "a value for each key");
    if keys.is_empty() {
        return (0, Ok(()));
    }
    let mut attr = BatchAttr {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(keys.len()).expect("fewer than 2^32 entries"),
        map_fd: raw(map),
        ..BatchAttr::default()
    };
    let result = bpf(BPF_MAP_UPDATE_BATCH, &mut attr).map(drop);
    match result {
        Ok(()) => (keys.len(), Ok(())),
        Err(error) => ((attr.count as usize).min(keys.len() - 1), Err(error)),
    }
}

/// Reads a whole hash map. Entries that come or go meanwhile may be missed.
pub(super) fn lookup_all<K: Copy + Default, V: Copy + Default>(
    map: BorrowedFd<'_>,
    max_entries: u32,
) -> io::Result<Vec<(K, V)>> {
    // A call returns whole hash buckets; this is room for any of them.
    let chunk = max_entries.clamp(1, 4096);
    let mut keys = vec![K::default(); chunk as usize];
    let mut values = vec![V::default(); chunk as usize];
    let mut found = Vec::new();
    // The kernel's cursor: 4 octets for hash maps, but it may write a key.
    let mut cursors = [[0_u8; 64]; 2];
    assert!(size_of::<K>() <= 64, "a cursor has room for a key");
    let mut is_first = true;
    loop {
        let [from, to] = &mut cursors;
        let mut attr = BatchAttr {
            in_batch: if is_first { 0 } else { from.as_ptr() as u64 },
            out_batch: to.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: chunk,
            map_fd: raw(map),
            ..BatchAttr::default()
        };
        let result = bpf(BPF_MAP_LOOKUP_BATCH, &mut attr);
        let is_last = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        let count = (attr.count as usize).min(keys.len());
        found.extend(
            keys[..count]
                .iter()
                .copied()
                .zip(values[..count].iter().copied()),
        );
        if is_last {
            return Ok(found);
        }
        cursors.swap(0, 1);
        is_first = false;
    }
}

#[repr(C)]
struct ElemAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Deletes an entry; says whether it was there.
pub(super) fn delete<K>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut attr = ElemAttr {
        map_fd: raw(map),
        padding: 0,
        key: &raw const *key as u64,
        value: 0,
        flags: 0,
    };
    match bpf(BPF_MAP_DELETE_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// An array map (`BPF_F_MMAPABLE`) in this process's memory: reading and
/// writing an element is no system call.
#[derive(Debug)]
pub(super) struct MappedArray {
    base: NonNull<AtomicU8>,
    bytes: usize,
    /// The kernel rounds elements up to eight octets.
    stride: usize,
    value_size: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and every
// access to it is atomic.
unsafe impl Send for MappedArray {}

impl MappedArray {
    /// Maps `entries` elements of `value_size` octets.
    pub(super) fn new(map: BorrowedFd<'_>, value_size: usize, entries: u32) -> io::Result<Self> {
        let stride = value_size.next_multiple_of(8);
        // SAFETY: sysconf has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).map_err(io::Error::other)?;
        let bytes = (stride * entries as usize).next_multiple_of(page);
        // SAFETY: a new shared mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self {
            base,
            bytes,
            stride,
            value_size,
        })
    }

    /// Copies element `index` into `value`. Needs `index < len()`.
    pub(super) fn read(&self, index: u32, value: &mut [u8]) {
        for (octet, cell) in value.iter_mut().zip(self.cells(index)) {
            *octet = cell.load(Ordering::Relaxed);
        }
    }

    /// Overwrites element `index`. Needs `index < len()`. Nothing may point at
    /// the element yet: the octets are not written all at once.
    pub(super) fn write(&self, index: u32, value: &[u8]) {
        for (octet, cell) in value.iter().zip(self.cells(index)) {
            cell.store(*octet, Ordering::Relaxed);
        }
        // Seen by every CPU before the frontend that will point here.
        fence(Ordering::SeqCst);
    }

    fn cells(&self, index: u32) -> &[AtomicU8] {
        let start = index as usize * self.stride;
        assert!(
            start + self.stride <= self.bytes,
            "element {index} is inside of the array"
        );
        // SAFETY: inside of the mapping by the line above; the mapping lives
        // as long as `self`; atomics may be shared with the kernel's readers.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(start), self.value_size) }
    }
}

impl Drop for MappedArray {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this address and length.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
