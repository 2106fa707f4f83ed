//! A proxy before the server that loses answers: it passes a script call on and cuts the connection instead of answering.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

/// Listens on a socket of its own until the process ends; each test has one.
pub(super) struct CuttingProxy {
    directory: tempfile::TempDir,
    cuts: Arc<AtomicU32>,
    late: Arc<AtomicBool>,
}

impl CuttingProxy {
    pub(super) fn start(server: PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("proxy.sock")).unwrap();
        let (cuts, late) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        thread::spawn({
            let (cuts, late) = (Arc::clone(&cuts), Arc::clone(&late));
            move || {
                for client in listener.incoming() {
                    serve(client.unwrap(), &server, &cuts, &late);
                }
            }
        });
        CuttingProxy { directory, cuts, late }
    }

    pub(super) fn url(&self) -> String {
        format!("redis+unix://{}", self.directory.path().join("proxy.sock").display())
    }

    /// Loses the answers to the next script calls.
    pub(super) fn cut(&self, answers: u32) {
        self.cuts.store(answers, Ordering::SeqCst);
    }

    /// As [`CuttingProxy::cut`], but passes what the script answers and loses what comes behind it.
    pub(super) fn cut_behind_the_answer(&self, answers: u32) {
        self.late.store(true, Ordering::SeqCst);
        self.cut(answers);
    }

    /// How many answers are still to be lost.
    pub(super) fn left(&self) -> u32 {
        self.cuts.load(Ordering::SeqCst)
    }
}

fn serve(client: UnixStream, server: &Path, cuts: &Arc<AtomicU32>, late: &Arc<AtomicBool>) {
    // A server that is away: the client sees its connection closed.
    let Ok(server) = UnixStream::connect(server) else { return };
    let cutting = Arc::new(AtomicBool::new(false));
    let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn({
        let (cuts, cutting) = (Arc::clone(cuts), Arc::clone(&cutting));
        move || {
            copy(from_client, to_server, |bytes| {
                let call = bytes.windows(7).any(|window| window == b"EVALSHA");
                let take = |left: u32| left.checked_sub(1);
                if call && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
                    cutting.store(true, Ordering::SeqCst);
                }
                true
            });
        }
    });
    let late = Arc::clone(late);
    let mut answers = 0;
    thread::spawn(move || {
        copy(server, client, |_| {
            let cutting = cutting.load(Ordering::SeqCst);
            answers += u32::from(cutting);
            !cutting || (late.load(Ordering::SeqCst) && answers == 1)
        });
    });
}

/// Copies until either end closes or `pass` says no; then closes both.
fn copy(mut from: UnixStream, mut to: UnixStream, mut pass: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !pass(&buffer[..length]) || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
