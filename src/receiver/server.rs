//! HTTP in front of the book: which request means what, and what it is answered.

use std::io::{self, Cursor, Read, Write};
use std::time::Duration;

use crossbeam_channel::Receiver as Channel;
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use tiny_http::{Header, Method, Request, Response, ResponseBox, Server};

use super::body::{self, Delivered};
use super::book::{Arrival, Book, Recorded};
use super::faults::{Drawn, FaultPanel, LateFailure};
use super::listing::Listing;
use crate::amount::Amount;
use crate::clock::Timestamp;
use crate::pulse::{Kind, Measure, UnitTotals};
use crate::signature::SigningKeys;
use crate::wording::counted;

/// The largest body of a batch; the largest that the sender's settings allow is far below.
pub(super) const BODY_BYTES_MAX: usize = 64 << 20;
/// The largest body of `POST /_faults`.
const FAULTS_BYTES_MAX: usize = 64 << 10;
/// The longest idempotency key.
const KEY_BYTES_MAX: usize = 256;

/// What every handler thread shares.
#[derive(Debug)]
pub(super) struct Desk {
    pub book: Book,
    /// See [`super::ReceiverOptions`].
    pub signing_keys: Option<SigningKeys>,
    pub faults: FaultPanel,
    /// Nothing is ever sent: it disconnects when the receiver stops, which ends a running delay.
    pub stopping: Channel<()>,
}

/// How a request ends.
enum Answer {
    Send(ResponseBox),
    /// See [`LateFailure::Close`].
    Withhold,
}

/// Why a body was not read to its end.
enum ReadError {
    TooLarge(usize),
    Broken(io::Error),
}

impl Desk {
    /// Answers requests until the server is unblocked or can accept no more.
    pub fn serve(&self, server: &Server) {
        while let Ok(request) = server.recv() {
            self.handle(request);
        }
        // Whatever ended this thread ends the others: each wakes the next.
        server.unblock();
    }

    fn handle(&self, mut request: Request) {
        let answered = match self.answer(&mut request) {
            Answer::Send(response) => request.respond(response),
            // tiny_http gives a handler no way to close a kept-alive connection, but no client keeps one on which it
            // read something that is no HTTP.
            Answer::Withhold => {
                let mut writer = request.into_writer();
                writer.write_all(b"(the answer is withheld)\r\n\r\n").and_then(|()| writer.flush())
            }
        };
        if let Err(error) = answered {
            log::warn!("an answer could not be sent: {error}");
        }
    }

    fn answer(&self, request: &mut Request) -> Answer {
        let url = request.url().to_owned();
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        let allowed = match path {
            "/process" => "POST",
            "/_faults" => "GET, HEAD, POST",
            "/totals" | "/totals/units" | "/batches" | "/healthz" => "GET, HEAD",
            _ => return Answer::Send(problem(404, "there is nothing here")),
        };
        let reads = matches!(request.method(), Method::Get | Method::Head);
        let posts = *request.method() == Method::Post;
        let response = match path {
            "/process" if posts => return self.process(request),
            "/_faults" if posts => self.set_faults(request),
            "/_faults" if reads => self.show_faults(),
            "/healthz" if reads => Response::from_string("ok\n").boxed(),
            "/totals" if reads => match tenant_filter(query) {
                Ok(tenant_id) => listed(self.book.list_totals(tenant_id)),
                Err(detail) => problem(400, &detail),
            },
            "/totals/units" if reads => match self.book.unit_totals() {
                Ok(totals) => json(units_json(&totals)),
                Err(error) => database_failed(&error),
            },
            "/batches" if reads => listed(self.book.list_batches()),
            _ => problem(405, "use another method").with_header(header("Allow", allowed)),
        };
        Answer::Send(response)
    }

    /// `POST /process`: a batch.
    fn process(&self, request: &mut Request) -> Answer {
        let drawn = self.faults.draw();
        let body = match read_body(request, BODY_BYTES_MAX) {
            Ok(body) => body,
            Err(error) => return Answer::Send(body_failed(&error)),
        };
        let Some(id) = field(request, "Idempotency-Key").or_else(|| field(request, "webhook-id")) else {
            return Answer::Send(problem(400, "the header Idempotency-Key is missing"));
        };
        if id.is_empty() || id.len() > KEY_BYTES_MAX {
            return Answer::Send(problem(400, "Idempotency-Key must have 1 to 256 bytes"));
        }
        if let Some(answer) = self.distrusted(request, &body) {
            return Answer::Send(answer);
        }
        let batch = match body::parse(&body) {
            Ok(batch) => batch,
            Err(error) => {
                log::warn!("batch {id} refused: {error}");
                let status = if matches!(error, body::BodyError::Syntax(_)) { 400 } else { 422 };
                return Answer::Send(problem(status, &error.to_string()));
            }
        };
        if let Some(answer) = fault_before_commit(&drawn, id, &batch) {
            return Answer::Send(answer);
        }
        let sha256 = hex(&Sha256::digest(&body));
        let arrival = Arrival {
            id,
            generation: field(request, "Ingestor-Generation"),
            window_start: field(request, "Ingestor-Window-Start"),
            window_end: field(request, "Ingestor-Window-End"),
            announced_count: field(request, "Ingestor-Batch-Count"),
            sha256: &sha256,
        };
        let recorded = self.book.record(&arrival, &batch, drawn.faults.forget);
        self.wait(drawn.faults.delay);
        let response = settled(recorded, id, batch.len());
        if drawn.fail_after_commit && response.status_code().0 == 204 {
            log::info!("batch {id} is committed, but as asked for it is not confirmed");
            return match drawn.faults.fail_after_commit_with {
                LateFailure::Status500 => Answer::Send(with_retry_after(problem(500, "failing as asked for"), &drawn)),
                LateFailure::Close => Answer::Withhold,
            };
        }
        Answer::Send(response)
    }

    /// The refusal of a batch that nobody signed who knows a secret. 401 pauses its sender and condemns no batch.
    fn distrusted(&self, request: &Request, body: &[u8]) -> Option<ResponseBox> {
        let keys = self.signing_keys.as_ref()?;
        let header = |name| field(request, name);
        let id = header("webhook-id").unwrap_or_default();
        let verified =
            keys.verify(id, header("webhook-timestamp"), header("webhook-signature"), body, Timestamp::now());
        let distrust = verified.err()?;
        log::warn!("batch {id:?} is not believed: {distrust}");
        Some(problem(401, &distrust.to_string()))
    }

    fn set_faults(&self, request: &mut Request) -> ResponseBox {
        match read_body(request, FAULTS_BYTES_MAX) {
            Err(error) => body_failed(&error),
            Ok(body) => match self.faults.patch(&body) {
                Err(detail) => problem(422, &detail),
                Ok(faults) => {
                    log::info!("faults are now {faults:?}");
                    self.show_faults()
                }
            },
        }
    }

    fn show_faults(&self) -> ResponseBox {
        json(serde_json::to_vec_pretty(&self.faults.current()).expect("the switches are plain values"))
    }

    /// Waits, or until the receiver stops.
    fn wait(&self, delay: Duration) {
        if !delay.is_zero() {
            let _ = self.stopping.recv_timeout(delay);
        }
    }
}

fn fault_before_commit(drawn: &Drawn, id: &str, batch: &[Delivered<'_>]) -> Option<ResponseBox> {
    let faults = &drawn.faults;
    if drawn.fail_before_commit {
        log::info!("batch {id} fails as asked for, nothing committed");
        return Some(with_retry_after(problem(faults.fail_status, "failing as asked for"), drawn));
    }
    if !faults.refuse_tenant.is_empty() && batch.iter().any(|delivered| delivered.tenant_id == faults.refuse_tenant) {
        log::info!("batch {id} refused as asked for: it holds usage of {:?}", faults.refuse_tenant);
        return Some(problem(422, &format!("tenant {:?} is refused here", faults.refuse_tenant)));
    }
    None
}

/// What the sender learns of a recorded batch.
fn settled(recorded: rusqlite::Result<Recorded>, id: &str, aggregates: usize) -> ResponseBox {
    match recorded {
        Ok(Recorded::Added) => {
            log::info!("batch {id}: {} added", counted(aggregates as u64, "aggregate", "aggregates"));
            Response::empty(204).boxed()
        }
        Ok(Recorded::Repeat) => {
            log::info!("batch {id} again: nothing added");
            Response::empty(204).with_header(header("Idempotent-Replayed", "true")).boxed()
        }
        Ok(Recorded::OtherBody) => {
            log::error!("batch {id} came again with another body: its sender is broken; nothing added");
            problem(422, "this idempotency key was used before with another body")
        }
        Ok(Recorded::TooLarge(measure)) => {
            log::error!("batch {id} would take the sum of {measure} beyond 1e27; nothing added");
            problem(422, &format!("the sum of {measure} would grow beyond 1e27"))
        }
        Err(error) => database_failed(&error),
    }
}

fn read_body(request: &mut Request, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
    let announced = request.body_length().unwrap_or(0);
    if announced > bytes_max {
        return Err(ReadError::TooLarge(bytes_max));
    }
    let mut body = Vec::with_capacity(announced);
    // One byte more than allowed tells a body of the full size from a longer one.
    let read = request.as_reader().take(bytes_max as u64 + 1).read_to_end(&mut body).map_err(ReadError::Broken)?;
    if read > bytes_max {
        return Err(ReadError::TooLarge(bytes_max));
    }
    // A connection that ended early looks like the end of the body.
    if read < announced {
        return Err(ReadError::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(body)
}

fn body_failed(error: &ReadError) -> ResponseBox {
    match error {
        ReadError::TooLarge(bytes_max) => problem(413, &format!("the body must have at most {bytes_max} bytes")),
        ReadError::Broken(error) => problem(400, &format!("the body could not be read: {error}")),
    }
}

/// The tenant that a query string asks for, if any.
fn tenant_filter(query: &str) -> Result<Option<String>, String> {
    let mut tenant_id = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("tenant_id", encoded)) => {
                let decoded = percent_decode_str(encoded).decode_utf8().map_err(|_| "tenant_id must be UTF-8")?;
                tenant_id = Some(decoded.into_owned());
            }
            // A misspelt filter would otherwise show everybody's totals.
            _ => return Err(format!("unknown parameter: {pair}")),
        }
    }
    Ok(tenant_id)
}

fn units_json(totals: &UnitTotals) -> Vec<u8> {
    let row = |Measure { unit, kind }: Measure, sum: Amount| {
        let mut row = serde_json::json!({"use_unit": unit.name(), "used_amount": kind.signed(sum).to_string()});
        if kind == Kind::Correction {
            row["kind"] = kind.name().into();
        }
        row
    };
    // Every unit is there, and its corrections if there are any.
    let shown = totals.iter().filter(|(measure, sum)| measure.kind == Kind::Usage || sum.is_positive());
    let sums: Vec<_> = shown.map(|(measure, sum)| row(measure, sum)).collect();
    serde_json::to_vec_pretty(&sums).expect("plain text serializes")
}

fn field<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    request.headers().iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str())
}

fn with_retry_after(response: ResponseBox, drawn: &Drawn) -> ResponseBox {
    let retry_after = drawn.faults.retry_after;
    if retry_after.is_zero() {
        return response;
    }
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    response.with_header(header("Retry-After", &seconds.to_string()))
}

fn listed(listing: rusqlite::Result<Listing>) -> ResponseBox {
    match listing {
        // Of unknown length: sent in chunks as it is read.
        Ok(listing) => {
            Response::new(200.into(), vec![header("Content-Type", "application/json")], listing, None, None).boxed()
        }
        Err(error) => database_failed(&error),
    }
}

fn database_failed(error: &rusqlite::Error) -> ResponseBox {
    log::error!("the receiver's database failed: {error}");
    problem(503, "the database failed; try again")
}

fn json(mut body: Vec<u8>) -> ResponseBox {
    body.push(b'\n');
    with_body(200, "application/json", body)
}

/// An error answer after RFC 9457.
fn problem(status: u16, detail: &str) -> ResponseBox {
    let title = tiny_http::StatusCode(status).default_reason_phrase();
    let document = serde_json::json!({"type": "about:blank", "title": title, "status": status, "detail": detail});
    with_body(status, "application/problem+json", format!("{document}\n").into_bytes())
}

fn with_body(status: u16, content_type: &str, body: Vec<u8>) -> ResponseBox {
    let length = body.len();
    Response::new(status.into(), vec![header("Content-Type", content_type)], Cursor::new(body), Some(length), None)
        .boxed()
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("the names and values used here are plain ASCII")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
