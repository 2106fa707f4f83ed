//! The framing of a chunked body, read as `tiny_http` reads it and no other way.

use super::{Refusal, Step};

/// Bytes that the framing of one chunk may have: its size in hexadecimal and whatever extension follows it.
const CHUNK_LINE_MAX: usize = 256;
/// Bytes that the fields after the last chunk may have, all together.
const TRAILER_MAX: usize = 4096;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunked {
    part: ChunkPart,
    /// Bytes of the current line so far.
    line: usize,
    size: u64,
    /// Bytes of all chunks before this one.
    total: u64,
    /// Bytes of the fields after the last chunk so far.
    trailer: usize,
    after_cr: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ChunkPart {
    #[default]
    Size,
    Extension,
    Data,
    DataEnd,
    Trailer,
}

impl Chunked {
    /// Returns what becomes of the next bytes, and whether the body is complete with them.
    pub(super) fn feed(&mut self, bytes: &[u8], max_body_bytes: u64) -> Result<(Step, bool), Refusal> {
        let mut at = 0;
        while at < bytes.len() {
            match self.part {
                ChunkPart::Data => {
                    let count = (bytes.len() - at).min(usize::try_from(self.size).unwrap_or(usize::MAX));
                    self.size -= count as u64;
                    at += count;
                    if self.size == 0 {
                        self.next_line(ChunkPart::DataEnd);
                    }
                }
                ChunkPart::Trailer if at > 0 => break,
                // `tiny_http` knows no trailer and would take one for the next request: only the last line passes.
                ChunkPart::Trailer => {
                    let keep = self.line == 0 && (self.after_cr || bytes[0] == b'\r');
                    let complete = self.feed_line(bytes[0], max_body_bytes)?;
                    return Ok((Step { count: 1, keep, head: false }, complete));
                }
                _ => match self.feed_line(bytes[at], max_body_bytes) {
                    Ok(_) => at += 1,
                    // What comes before an offence passes. The next look finds it again.
                    Err(_) if at > 0 => break,
                    Err(refusal) => return Err(refusal),
                },
            }
        }
        Ok((Step::keep(at), false))
    }

    /// One byte of the framing between the data; true after the last one of the body.
    fn feed_line(&mut self, byte: u8, max_body_bytes: u64) -> Result<bool, Refusal> {
        if self.after_cr {
            return if byte == b'\n' { self.end_line() } else { Err(Refusal::Malformed) };
        }
        if byte == b'\r' {
            self.after_cr = true;
            return Ok(false);
        }
        self.line += 1;
        self.trailer += usize::from(self.part == ChunkPart::Trailer);
        let too_long = self.trailer > TRAILER_MAX || (self.trailer == 0 && self.line > CHUNK_LINE_MAX);
        if byte == b'\n' || too_long || self.part == ChunkPart::DataEnd {
            return Err(Refusal::Malformed);
        }
        match (self.part, (byte as char).to_digit(16)) {
            (ChunkPart::Size, Some(digit)) => {
                self.size = self.size.saturating_mul(16).saturating_add(u64::from(digit));
                if self.total.saturating_add(self.size) > max_body_bytes {
                    return Err(Refusal::BodyTooLong);
                }
            }
            // No white space before it: `tiny_http` would read the line in another way.
            (ChunkPart::Size, None) if self.line > 1 && byte == b';' => self.part = ChunkPart::Extension,
            (ChunkPart::Size, None) => return Err(Refusal::Malformed),
            _ => {}
        }
        Ok(false)
    }

    fn end_line(&mut self) -> Result<bool, Refusal> {
        match self.part {
            ChunkPart::Size | ChunkPart::Extension if self.line == 0 => return Err(Refusal::Malformed),
            ChunkPart::Size | ChunkPart::Extension => {
                self.total = self.total.saturating_add(self.size);
                self.next_line(if self.size == 0 { ChunkPart::Trailer } else { ChunkPart::Data });
            }
            ChunkPart::DataEnd | ChunkPart::Data => self.next_line(ChunkPart::Size),
            ChunkPart::Trailer if self.line == 0 => return Ok(true),
            ChunkPart::Trailer => self.next_line(ChunkPart::Trailer),
        }
        Ok(false)
    }

    fn next_line(&mut self, part: ChunkPart) {
        self.part = part;
        self.line = 0;
        self.after_cr = false;
    }
}
