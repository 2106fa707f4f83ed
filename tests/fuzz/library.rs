//! A model of how `tiny_http` 0.12 and its chunk decoder read a connection, each body to its end. Written from their
//! source, with their slips: what passes the door must hold no request for it that the door has not counted.

/// A head as the library reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    pub line: String,
    /// What it would allocate.
    pub content_length: Option<usize>,
}

/// Every head that the library would find in these bytes, followed by the end of the connection.
pub fn heads(bytes: &[u8]) -> Vec<Head> {
    let mut reader = Reader { bytes, at: 0 };
    let mut heads = Vec::new();
    while let Some((head, is_last)) = reader.head() {
        heads.push(head);
        if is_last {
            break;
        }
    }
    heads
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte
    }

    /// A line ends at CR LF and is ASCII.
    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        loop {
            let byte = self.byte()?;
            if byte == b'\n' && line.last() == Some(&b'\r') {
                line.pop();
                return String::from_utf8(line).ok().filter(|line| line.is_ascii());
            }
            line.push(byte);
        }
    }

    /// The next head, its body read, and whether it is the last one; `None` where the library gives up.
    fn head(&mut self) -> Option<(Head, bool)> {
        let line = self.line()?.trim().to_owned();
        let version = line.split(' ').nth(2)?;
        if !matches!(version, "HTTP/0.9" | "HTTP/1.0" | "HTTP/1.1" | "HTTP/2.0" | "HTTP/3.0") {
            return None;
        }
        let is_1_0 = matches!(version, "HTTP/0.9" | "HTTP/1.0");
        let mut fields = Vec::new();
        loop {
            let field = self.line()?;
            if field.is_empty() {
                break;
            }
            let (name, value) = field.trim().split_once(':')?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        // Only the first field of a name counts.
        let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let is_chunked = field("transfer-encoding").is_some();
        let content_length = field("content-length").filter(|_| !is_chunked).and_then(|value| value.parse().ok());
        let connection = field("connection").unwrap_or_default().to_ascii_lowercase();
        let is_last = connection.contains("close")
            || connection.contains("upgrade")
            || (is_1_0 && !connection.contains("keep-alive"));
        if is_chunked {
            // Whether it fails or not, the library goes on where it stopped.
            let _ = self.chunks();
        } else if let Some(length) = content_length {
            self.at = self.at.saturating_add(length).min(self.bytes.len());
        }
        Some((Head { line, content_length }, is_last))
    }

    fn chunks(&mut self) -> Option<()> {
        loop {
            let mut size = Vec::new();
            let mut in_extension = false;
            loop {
                match self.byte()? {
                    b'\r' => break,
                    b';' => in_extension = true,
                    byte if !in_extension => size.push(byte),
                    _ => {}
                }
            }
            self.expect(b'\n')?;
            let size = usize::from_str_radix(String::from_utf8(size).ok()?.trim(), 16).ok()?;
            self.at = self.at.saturating_add(size).min(self.bytes.len());
            self.expect(b'\r')?;
            self.expect(b'\n')?;
            if size == 0 {
                return Some(());
            }
        }
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.byte()? == wanted).then_some(())
    }
}
