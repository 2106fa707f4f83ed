//! What systemd hands over, and what it is told: the listening socket, readiness, signs of life. Everywhere else nothing
//! of this does anything.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

#[cfg(unix)]
use sd_notify::NotifyState;

use crate::shutdown::Shutdown;

/// Asks for the least that proves that the accept loop and the threads behind it are alive. It needs no store: a Redis
/// that is away is not cured by a restart.
const SIGN_OF_LIFE: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: ingestor\r\nConnection: close\r\n\r\n";
/// How any answer begins, also that of a server with too many connections.
const ANSWER: &[u8] = b"HTTP/1.1 ";

/// The listening socket that came with the process (`ListenStream` of a `.socket` unit), if one did. To be called before
/// the first thread starts, since it takes the variables that say so out of the environment.
///
/// # Errors
/// A message if what came is no listening TCP socket, or more than one.
#[cfg(unix)]
pub fn take_listener() -> Result<Option<TcpListener>, String> {
    let mut passed = listenfd::ListenFd::from_env();
    match passed.len() {
        0 => Ok(None),
        1 => passed.take_tcp_listener(0).map_err(|error| format!("the socket that was passed can't be used: {error}")),
        more => Err(format!("{more} sockets were passed; one is wanted, for pulses (ListenStream)")),
    }
}

/// No supervisor passes sockets here.
///
/// # Errors
/// Never.
#[cfg(not(unix))]
pub fn take_listener() -> Result<Option<TcpListener>, String> {
    Ok(None)
}

/// Says that the process serves, what as, and from now on that it is alive.
pub fn ready(address: SocketAddr, status: &str, stop: &Shutdown) {
    #[cfg(unix)]
    {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
        if let Some(limit) = sd_notify::watchdog_enabled() {
            let stop = stop.clone();
            crate::threads::spawn("watchdog", move || watch(address, limit / 3, &stop));
        }
    }
    #[cfg(not(unix))]
    let _ = (address, status, stop);
}

/// Says that the process is about to end.
pub fn stopping() {
    #[cfg(unix)]
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

#[cfg(unix)]
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("systemd was not told {states:?}: {error}");
    }
}

/// Passes on each sign of life. Without them systemd ends the process and starts it again.
#[cfg(unix)]
fn watch(address: SocketAddr, interval: Duration, stop: &Shutdown) {
    while !stop.wait(interval) {
        match answers(address, interval) {
            Ok(()) => tell(&[NotifyState::Watchdog]),
            Err(error) => log::error!("this process does not answer its own /healthz: {error}"),
        }
    }
}

fn answers(address: SocketAddr, limit: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&crate::config::reachable(address), limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(SIGN_OF_LIFE)?;
    let mut beginning = [0; ANSWER.len()];
    stream.read_exact(&mut beginning)?;
    if beginning == ANSWER { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    #[test]
    fn any_answer_is_a_sign_of_life_and_silence_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // The kernel accepts, nobody answers.
        assert!(answers(address, LIMIT).is_err());
        // The first connection is still in the queue.
        let (first, _) = listener.accept().unwrap();
        let asked = std::thread::spawn(move || answers(address, Duration::from_secs(10)));
        let (mut second, _) = listener.accept().unwrap();
        second.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap();
        asked.join().unwrap().unwrap();
        drop(first);
    }
}
