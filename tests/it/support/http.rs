//! A raw HTTP/1.1 client: what it sends are the test's own bytes, and what it reads is checked for its framing.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

/// How long an answer may take where nothing is said. Longer than any request time-out of these tests.
pub const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// After it a client of a load takes its connection for lost and repeats its pulses under the same ids.
pub const IMPATIENT: Duration = Duration::from_secs(2);

/// An answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// A header's value, by its name without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// Checks that it is a problem document (RFC 9457) with this status, and returns it.
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("Content-Type"), Some("application/problem+json"));
        let document = self.json();
        assert_eq!(document["status"], status, "{document}");
        for member in ["type", "title", "detail"] {
            assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{member} in {document}");
        }
        document
    }
}

/// A connection that is kept until dropped.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        Self::open_with(address, READ_TIMEOUT)
    }

    pub fn open_with(address: SocketAddr, read_timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, read_timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(read_timeout))?;
        stream.set_write_timeout(Some(read_timeout))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Changes how long the next answers may take.
    pub fn set_read_timeout(&mut self, read_timeout: Duration) {
        self.stream.get_ref().set_read_timeout(Some(read_timeout)).expect("the time-out is not zero");
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The answer to anything but HEAD.
    pub fn receive(&mut self) -> io::Result<Response> {
        let (status, headers) = self.receive_head()?;
        let mut response = Response { status, headers, body: Vec::new() };
        if response.header("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            response.body = self.receive_chunks()?;
        } else if let Some(length) = response.header("Content-Length") {
            let length = length.parse().map_err(|_| io::Error::other("Content-Length is no number"))?;
            response.body = vec![0; length];
            self.stream.read_exact(&mut response.body)?;
        }
        Ok(response)
    }

    /// Every answer until the server closes the connection or says nothing more.
    pub fn receive_all(&mut self) -> Vec<Response> {
        std::iter::from_fn(|| self.receive().ok()).collect()
    }

    /// Everything until the server closes the connection or says nothing more, byte for byte.
    pub fn receive_bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) -> io::Result<()> {
        self.stream.get_ref().shutdown(Shutdown::Write)
    }

    /// Resets the connection instead of closing it.
    pub fn reset(self) {
        let _ = SockRef::from(self.stream.get_ref()).set_linger(Some(Duration::ZERO));
    }

    /// An answer's status line and headers, and no byte of what follows.
    pub fn receive_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let status_line = self.receive_line()?;
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.receive_line()?;
            match line.split_once(':') {
                None if line.is_empty() => return Ok((status, headers)),
                None => return Err(io::Error::other(format!("no header: {line:?}"))),
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            }
        }
    }

    /// Whether the server closes the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
            || self.stream.get_ref().peek(&mut [0]).is_ok_and(|count| count == 0)
    }

    fn receive_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::Error::new(ErrorKind::UnexpectedEof, format!("the connection ended in {line:?}"))),
        }
    }

    fn receive_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.receive_line()?;
            let size = usize::from_str_radix(&size, 16).map_err(|_| io::Error::other("no chunk size"))?;
            let mut chunk = vec![0; size];
            self.stream.read_exact(&mut chunk)?;
            body.append(&mut chunk);
            self.receive_line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

/// A request's bytes, with the headers that every request needs.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: ingestor\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// Reads a page on a connection of its own. Asks again if no answer comes: nothing changes by it.
pub fn get(address: SocketAddr, target: &str) -> io::Result<Response> {
    let once = || {
        let mut connection = Connection::open_with(address, IMPATIENT)?;
        connection.send(&request("GET", target, &[("Connection", "close")], b""))?;
        connection.receive()
    };
    once().or_else(|_| once())
}

/// Keeps one connection, and opens another one when the last is lost.
pub struct Client {
    address: SocketAddr,
    connection: Option<Connection>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Client { address, connection: None }
    }

    /// Goes on at another address.
    pub fn move_to(&mut self, address: SocketAddr) {
        if self.address != address {
            *self = Client::new(address);
        }
    }

    /// Sends a request once. After an error nobody knows what became of it.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open_with(self.address, IMPATIENT)?,
        };
        connection.send(bytes)?;
        let response = connection.receive()?;
        if response.header("Connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(response)
    }
}
