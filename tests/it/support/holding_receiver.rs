//! A receiver inside the test: it keeps every POST, and answers only when it is told to.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::eventually;

/// One batch as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    pub id: String,
    pub body: Vec<u8>,
}

/// A receiver that answers 204, once it may.
pub struct HoldingReceiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    posts: Vec<Post>,
    answers: bool,
}

impl HoldingReceiver {
    /// One that does not answer yet.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        // Ends with the test's process; a connection that comes later meets nobody.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                // A client that is killed in the middle of a request is what this is for.
                thread::spawn(move || drop(serving.serve(stream)));
            }
        });
        HoldingReceiver { address, shared }
    }

    /// Where batches are sent to.
    pub fn url(&self) -> String {
        format!("http://{}/process", self.address)
    }

    /// Everything that came so far.
    pub fn posts(&self) -> Vec<Post> {
        self.shared.lock().posts.clone()
    }

    /// Waits for the first POST.
    pub fn wait_for_a_post(&self) {
        eventually("a batch comes", || if self.posts().is_empty() { Err("none yet".to_owned()) } else { Ok(()) });
    }

    /// Answers from now on, also what came before.
    pub fn answer(&self) {
        self.shared.lock().answers = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        while let Some(post) = read_post(&mut reader)? {
            let mut state = self.lock();
            state.posts.push(post);
            drop(self.changed.wait_while(state, |state| !state.answers));
            writer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        }
        Ok(())
    }
}

/// The next request, with a body of an announced length; `None` at the end of the connection.
fn read_post(reader: &mut impl BufRead) -> io::Result<Option<Post>> {
    let (mut id, mut length) = (String::new(), 0);
    for number in 0.. {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return if number == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim())) {
            Some((name, value)) if name == "idempotency-key" => id = value.to_owned(),
            Some((name, value)) if name == "content-length" => length = value.parse().map_err(io::Error::other)?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Post { id, body }))
}
