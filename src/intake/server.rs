//! The addresses of the intake, started and drained together.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::config::IntakeSettings;
use crate::door::{DESCRIPTORS_PER_CONNECTION, DoorPolicy};
use crate::intake::context::Intake;
use crate::intake::listener::{Bound, Listener};
use crate::intake::routes::{Face, Routes};
use crate::wording::span;

/// Connections at once on an address of the operators' own.
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// A listening intake.
pub struct IntakeServer {
    intake: Arc<Intake>,
    main: Listener,
    admin: Option<Listener>,
}

impl IntakeServer {
    /// Listens, on the socket that was passed if one was, and handles requests from now on.
    ///
    /// # Errors
    /// An address is taken or not this machine's.
    pub fn start(intake: Intake, passed: Option<TcpListener>) -> Result<IntakeServer, String> {
        let settings = &intake.settings;
        let main = match passed {
            Some(socket) => Bound::passed(socket, main_policy(settings))?,
            None => Bound::new(settings.listen, ["INGESTOR_HOST", "INGESTOR_PORT"], main_policy(settings))?,
        };
        let admin = settings.admin_listen.map(|address| Bound::new(address, ["ADMIN_ADDR"; 2], admin_policy(settings)));
        let admin = admin.transpose()?;
        let doors: Arc<[_]> = std::iter::once(&main).chain(&admin).map(Bound::door).collect();
        let intake = Arc::new(intake);
        let routes = |face| Routes { intake: intake.clone(), face, doors: doors.clone() };
        let face = if admin.is_some() { Face::Pulses } else { Face::Whole };
        let main = main.serve("accept", routes(face))?;
        let admin = admin.map(|bound| bound.serve("admin-accept", routes(Face::Operators))).transpose()?;
        Ok(IntakeServer { intake, main, admin })
    }

    /// Where pulses are taken.
    pub fn address(&self) -> SocketAddr {
        self.main.address()
    }

    /// Where operators have an address of their own.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Listener::address)
    }

    /// Says that the process is about to end, and goes on as before for the drain delay: whoever sends requests here by
    /// `/readyz` has then turned away before anything is refused.
    pub fn leave(&self) {
        let delay = self.intake.settings.drain_delay;
        self.intake.leaving.store(true, Ordering::Release);
        if !delay.is_zero() {
            self.main.leave();
            log::info!("leaving: /readyz says so, pulses are still taken for {}", span(delay));
            std::thread::sleep(delay);
        }
    }

    /// Stops listening, waits until what was accepted is answered (at most for the drain timeout), then closes the
    /// queue so that the workers end. Returns whether everything was answered. The operators' address is closed last:
    /// a drain is worth watching.
    pub fn drain(self) -> bool {
        let deadline = Instant::now() + self.intake.settings.drain_timeout;
        self.intake.draining.store(true, Ordering::Release);
        let mut complete = self.main.close(deadline);
        self.main.stop();
        if let Some(admin) = self.admin {
            complete &= admin.close(deadline);
            admin.stop();
        }
        self.intake.queue.close();
        complete
    }
}

fn main_policy(settings: &IntakeSettings) -> DoorPolicy {
    let elsewhere = if settings.admin_listen.is_some() { ADMIN_CONNECTIONS_MAX } else { 0 };
    DoorPolicy {
        max_connections: settings.max_connections,
        max_head_bytes: settings.max_header_bytes,
        max_body_bytes: settings.max_body_bytes,
        request_timeout: settings.request_timeout,
        answers_are_reported: true,
        descriptors_elsewhere: elsewhere * DESCRIPTORS_PER_CONNECTION,
        ..DoorPolicy::default()
    }
}

fn admin_policy(settings: &IntakeSettings) -> DoorPolicy {
    DoorPolicy { max_connections: ADMIN_CONNECTIONS_MAX, descriptors_elsewhere: 0, ..main_policy(settings) }
}
