//! The C functions that the standard library calls for `tiny_http`'s sockets, defined by this program.
//!
//! A symbol that an executable defines wins over the C library's, in dynamic and in static builds. Each function here
//! does what its manual page says for every descriptor of the process; only those that `slots` knows are treated
//! otherwise. None of them may panic: unwinding out of them would abort the process.
#![expect(unsafe_code, reason = "C functions with raw pointers; this is the only module that has any")]

use std::cell::RefCell;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use libc::{c_int, c_void, size_t, sockaddr, socklen_t, ssize_t};
use socket2::{SockAddr, SockRef};

use super::connection::{Connection, Passage};
use super::slots;

/// How often it is looked whether a shared listener was closed, in milliseconds.
const LOOK_MS: c_int = 50;
/// Pause before another try to accept while the system is out of something.
const SCARCITY_PAUSE: Duration = Duration::from_millis(20);

thread_local! {
    /// The connection that this thread accepted last and that has no second descriptor yet.
    static ACCEPTED: RefCell<Option<Arc<Connection>>> = const { RefCell::new(None) };
}

/// Keeps the linker from leaving this module out.
pub(super) fn link() {
    std::hint::black_box([accept4 as *const (), getpeername as *const (), recv as *const (), close as *const ()]);
}

/// `accept(2)`. For a guarded listener: no error that would end the library's accept thread, and no connection that
/// may not come in.
///
/// # Safety
/// As in the manual page: `address` and `length` are null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(
    listener: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    let Some(guarded) = slots::listener(listener) else {
        // SAFETY: the caller's own arguments, passed on unchanged.
        return unsafe { libc::syscall(libc::SYS_accept4, listener, address, length, flags) } as c_int;
    };
    loop {
        guarded.wait_for_pick_up();
        if guarded.is_shared() && !wait_for_client(listener, || guarded.is_closed()) {
            return fail(&io::Error::from_raw_os_error(libc::EINVAL));
        }
        let (stream, client) = match accept(listener, flags) {
            Ok(accepted) => accepted,
            Err(error) => match error.raw_os_error() {
                // The listener itself is gone or was shut down: this is how the accept thread is to end.
                Some(libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP) => return fail(&error),
                Some(libc::EINTR | libc::ECONNABORTED) => continue,
                _ => {
                    std::thread::sleep(SCARCITY_PAUSE);
                    continue;
                }
            },
        };
        let is_guardable = slots::is_guardable(stream.as_raw_fd());
        if let Some((stream, connection)) = guarded.admit(stream, client, is_guardable) {
            slots::also_known_as(stream.as_raw_fd(), &connection);
            // SAFETY: the caller vouches for its pointers.
            unsafe { copy_address(connection.client(), address, length) };
            let _ = ACCEPTED.try_with(|accepted| accepted.replace(Some(connection)));
            return stream.into_raw_fd();
        }
    }
}

/// Waits until a client waits; returns whether one does, or else the wait is over. Other than a wait in `accept4`, this
/// one ends although nobody shuts the listener down: what comes later is left to whoever holds the listener next.
fn wait_for_client(listener: c_int, is_over: impl Fn() -> bool) -> bool {
    let mut wanted = libc::pollfd { fd: listener, events: libc::POLLIN, revents: 0 };
    while !is_over() {
        // SAFETY: it is one structure, and valid.
        match unsafe { libc::poll(&raw mut wanted, 1, LOOK_MS) } {
            0 => {}
            -1 if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
            // A broken listener shows in `accept4`.
            _ => return true,
        }
    }
    false
}

fn accept(listener: c_int, flags: c_int) -> io::Result<(TcpStream, SockAddr)> {
    // SAFETY: the storage that socket2 provides is as long as it says, and the kernel writes a valid address into it.
    let (descriptor, client) = unsafe {
        SockAddr::try_init(|storage, length| {
            match libc::syscall(libc::SYS_accept4, listener, storage, length, flags) {
                -1 => Err(io::Error::last_os_error()),
                descriptor => Ok(descriptor as RawFd),
            }
        })?
    };
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok((unsafe { TcpStream::from_raw_fd(descriptor) }, client))
}

/// `getpeername(2)`. The library asks it of each connection's second descriptor, on the thread that accepted it, and
/// panics later if the client has left by then: so it is told what `accept4` said.
///
/// # Safety
/// As in the manual page: `address` and `length` are valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpeername(descriptor: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
    let known = slots::connection(descriptor).or_else(|| {
        let accepted = ACCEPTED.try_with(RefCell::take).ok().flatten()?;
        slots::also_known_as(descriptor, &accepted);
        Some(accepted)
    });
    match known {
        Some(connection) => {
            // SAFETY: the caller vouches for its pointers.
            unsafe { copy_address(connection.client(), address, length) };
            0
        }
        // SAFETY: the caller's own arguments, passed on unchanged.
        None => unsafe { libc::syscall(libc::SYS_getpeername, descriptor, address, length) as c_int },
    }
}

/// `recv(2)`. For a guarded connection: only bytes that may pass, and an end of file once nothing more may.
///
/// # Safety
/// As in the manual page: `buffer` is valid for writing `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recv(descriptor: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
    let Some(connection) = slots::connection(descriptor) else {
        // SAFETY: the caller's own arguments, passed on unchanged.
        return unsafe { plain_recv(descriptor, buffer, length, flags) };
    };
    // SAFETY: the caller holds the descriptor open for the length of this call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let socket = SockRef::from(&borrowed);
    if let Some(passage) = connection.before_read(&socket, || unsent_bytes(descriptor)) {
        return said(passage);
    }
    loop {
        // SAFETY: the caller's own arguments, passed on unchanged.
        let count = unsafe { plain_recv(descriptor, buffer, length, flags) };
        if count > 0 {
            // SAFETY: the kernel has written so many bytes, at most `length`, into the caller's buffer.
            let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), count as usize) };
            match connection.after_read(bytes, &socket) {
                Some(passage) => return said(passage),
                None => continue,
            }
        }
        if count == 0 {
            return said(connection.end());
        }
        let timed_out = io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock;
        if !timed_out {
            return count;
        }
        if let Some(passage) = connection.after_time_out(&socket) {
            return said(passage);
        }
    }
}

/// A passage as `recv` says it.
fn said(passage: Passage) -> ssize_t {
    match passage {
        Passage::Pass(count) => count as ssize_t,
        Passage::End => 0,
        Passage::Fail(error) => fail(&io::Error::from_raw_os_error(error)) as ssize_t,
    }
}

/// `close(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn close(descriptor: c_int) -> c_int {
    slots::forget(descriptor);
    // SAFETY: closing a descriptor touches no memory of this program.
    unsafe { libc::syscall(libc::SYS_close, descriptor) as c_int }
}

/// Bytes of answers that the client's system has not acknowledged yet; 0 if that can't be asked.
fn unsent_bytes(descriptor: RawFd) -> usize {
    let mut count: c_int = 0;
    // SAFETY: this request writes one int, and that is what it is given.
    let done = unsafe { libc::ioctl(descriptor, libc::TIOCOUTQ, &raw mut count) };
    if done == 0 { usize::try_from(count).unwrap_or(0) } else { 0 }
}

/// # Safety
/// As for [`recv`].
unsafe fn plain_recv(descriptor: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
    let nobody = std::ptr::null_mut::<c_void>();
    // SAFETY: the caller vouches for the buffer; without a place for the sender's address, none is written.
    unsafe { libc::syscall(libc::SYS_recvfrom, descriptor, buffer, length, flags, nobody, nobody) as ssize_t }
}

/// # Safety
/// `address` and `length` are null or valid for writing, `address` for as many bytes as `length` says.
unsafe fn copy_address(from: &SockAddr, address: *mut sockaddr, length: *mut socklen_t) {
    if address.is_null() || length.is_null() {
        return;
    }
    // SAFETY: no more bytes are copied than either side has, and the places are valid by this function's contract.
    unsafe {
        let room = (*length).min(from.len());
        std::ptr::copy_nonoverlapping(from.as_ptr().cast::<u8>(), address.cast::<u8>(), room as usize);
        *length = from.len();
    }
}

fn fail(error: &io::Error) -> c_int {
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() = error.raw_os_error().unwrap_or(libc::EIO) };
    -1
}
