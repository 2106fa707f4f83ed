//! The least that `tiny_http` can do for a POST: read its body, answer 204. What `scripts/bench` compares the ingestor with.
//!
//! Listens on a free port and names it in the first line of standard output. Runs until it is killed.

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::thread;

use tiny_http::{Response, Server};

/// Two were the fastest of one, two and four on two cores.
const RECEIVING_THREADS: usize = 2;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let server = Arc::new(Server::http("127.0.0.1:0")?);
    println!("listening on http://{}/ingest", server.server_addr());
    std::io::stdout().flush()?;
    let threads: Vec<_> = (0..RECEIVING_THREADS)
        .map(|_| {
            let server = server.clone();
            thread::spawn(move || receive(&server))
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a receiving thread panicked")?;
    }
    Ok(())
}

fn receive(server: &Server) {
    let mut body = Vec::new();
    for mut request in server.incoming_requests() {
        body.clear();
        // A client that leaves half-way is not worth a word here.
        if request.as_reader().read_to_end(&mut body).is_ok() {
            let _ = request.respond(Response::empty(204));
        }
    }
}
