//! Signals of the system: what ends the program, and what has it read its API keys again.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use crate::shutdown::{Request, Shutdown};

/// Exit status after a second signal, as shells report SIGINT.
const INTERRUPTED_STATUS: i32 = 130;
/// How long the last line of the log may take. Whoever reads it may be what the drain waits for.
const LAST_LINE_LIMIT: Duration = Duration::from_millis(500);

/// What SIGHUP means. Until somebody says otherwise it ends the program, as when its terminal is closed.
#[derive(Clone, Default)]
pub struct Hangup(Arc<Mutex<Option<Handler>>>);

type Handler = Box<dyn Fn() + Send>;

impl Hangup {
    /// From now on SIGHUP calls `handler`, on the thread that waits for signals, and ends nothing.
    pub fn means(&self, handler: impl Fn() + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(handler));
    }

    /// Calls the handler; returns whether there is one.
    #[cfg(unix)]
    fn call(&self) -> bool {
        let handler = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handler.as_ref().map(|handler| handler()).is_some()
    }
}

/// Waits for signals from now on. The first one that ends the program asks for a drain; a second one, a second later or
/// more, ends the process at once.
///
/// # Errors
/// The system refuses to hand the signals over.
pub fn watch(stop: &Shutdown, hangup: &Hangup) -> Result<(), String> {
    let interrupted = stop.clone();
    ctrlc::set_handler(move || end(&interrupted)).map_err(|error| error.to_string())?;
    watch_others(stop, hangup)
}

/// `ctrlc` would treat SIGTERM and SIGHUP alike, so it gets Ctrl-C only.
#[cfg(unix)]
fn watch_others(stop: &Shutdown, hangup: &Hangup) -> Result<(), String> {
    use signal_hook::consts::{SIGHUP, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGHUP]).map_err(|error| error.to_string())?;
    let (stop, hangup) = (stop.clone(), hangup.clone());
    crate::threads::spawn("signals", move || {
        for signal in signals.forever() {
            if signal != SIGHUP || !hangup.call() {
                end(&stop);
            }
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn watch_others(_stop: &Shutdown, _hangup: &Hangup) -> Result<(), String> {
    Ok(())
}

fn end(stop: &Shutdown) {
    if stop.request() == Request::Insistence {
        say("a second signal: the process ends at once, and what it had begun may be without an answer");
        std::process::exit(INTERRUPTED_STATUS);
    }
}

fn say(text: &'static str) {
    let (said, heard) = mpsc::channel();
    let speak = move || {
        log::warn!("{text}");
        // Nobody listens any more if it took too long.
        let _ = said.send(());
    };
    if std::thread::Builder::new().spawn(speak).is_ok() {
        let _ = heard.recv_timeout(LAST_LINE_LIMIT);
    }
}
