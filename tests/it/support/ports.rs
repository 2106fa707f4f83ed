//! Ports that nobody listens on.

use std::net::TcpListener;

/// A free port of this machine; somebody else may take it, but the system gives it to nobody else for a while.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}
