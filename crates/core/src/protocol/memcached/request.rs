//! Scanning a memcached client's bytes: where a request ends, whether it is one, and what of it a shard is sent.
//!
//! Owns: `TextScanner`. Every request that it lets through has exactly one reply from any server, whatever the client wrote.
//!
//! Flow: bytes -> one line -> words -> the command's shape -> `judge` -> with data: its length and line end. There is no state between
//! calls; an incomplete request is shown again with more behind it, and only its line is read again.
//!
//! Must stay true: what is let through is understood by a server just as by us, because a line that a server refuses makes
//! its data block into further requests, on a connection that others use. So numbers are digits, keys are bounded and
//! printable, words too many are left out, and `noreply` is taken away and done here.
//! Rejected: sending `noreply` on (a server that answers all the same, as some do after an error, puts every later reply in
//! the wrong place).

use crate::limits::{TEXT_KEYS_LINE_MAX, TEXT_KEY_MAX, TEXT_LINE_MAX, TEXT_VALUE_MAX};
use crate::protocol::memcached::command::{find, Shape, TextCommand};
use crate::protocol::memcached::number::{is_number_for_a_server, signed, size, unsigned};

/// Part of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// Where it begins.
    pub start: u32,
    /// Its length.
    pub len: u32,
}

/// Why a client is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The binary protocol.
    Binary,
    /// HTTP.
    Http,
    /// A line that does not end.
    LineTooLong,
    /// A value larger than we hold.
    ValueTooLarge,
}

impl Fault {
    /// What it is told before.
    pub fn line(self) -> &'static [u8] {
        match self {
            Self::Binary => b"CLIENT_ERROR shoal: the binary protocol is not supported, use the text protocol; closing\r\n",
            Self::Http => b"CLIENT_ERROR shoal: this is not an HTTP port; closing\r\n",
            Self::LineTooLong => b"CLIENT_ERROR line too long\r\n",
            Self::ValueTooLarge => b"SERVER_ERROR object too large for cache\r\n",
        }
    }
}

/// What a scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// More bytes are needed.
    Partial,
    /// A request of so many bytes. Its words are in `words`.
    Whole {
        /// Its bytes, data included.
        len: usize,
        /// Those of its line, without line end.
        line: usize,
        /// Where its data begins; `len` where it has none.
        block: usize,
        /// The command.
        command: &'static TextCommand,
        /// The client wants no reply.
        is_mute: bool,
        /// The line is not to be sent as it is: only `words`.
        is_rewritten: bool,
    },
    /// So many bytes are not a request; the answer, unless it is not wanted.
    Refused {
        /// The bytes.
        len: usize,
        /// The answer, a server's own.
        line: &'static [u8],
        /// The client wants no reply.
        is_mute: bool,
    },
    /// The client cannot be served.
    Close(Fault),
}

const ERROR: &[u8] = b"ERROR\r\n";
const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const BAD_CHUNK: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
const BAD_TIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";
const BAD_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta argument\r\n";
const BAD_DELETE: &[u8] =
    b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";
const BAD_FLAG: &[u8] = b"CLIENT_ERROR invalid flag\r\n";
const BAD_TOKEN: &[u8] = b"CLIENT_ERROR bad token in command line format\r\n";
const TWICE: &[u8] = b"CLIENT_ERROR duplicate flag\r\n";
const BAD_MODE: &[u8] = b"CLIENT_ERROR invalid mode for ms M token\r\n";
const BAD_BASE64: &[u8] = b"CLIENT_ERROR error decoding key\r\n";

/// A line that is understood, or not.
enum Verdict {
    /// It has no data.
    Line { words: usize, is_mute: bool },
    /// It has so many bytes of data.
    Block {
        words: usize,
        is_mute: bool,
        size: usize,
    },
    /// It is answered by us; so many bytes of data come behind it and are passed over.
    Refused {
        line: &'static [u8],
        is_mute: bool,
        size: Option<usize>,
    },
}

fn refused(line: &'static [u8], is_mute: bool) -> Verdict {
    Verdict::Refused {
        line,
        is_mute,
        size: None,
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct TextScanner {
    /// Words of the last line; those that a shard is sent.
    pub words: Vec<Word>,
}

impl TextScanner {
    /// Looks for one request at the beginning of `data`, which is not empty.
    #[inline]
    pub fn scan(&mut self, data: &[u8]) -> Scan {
        match self.usual(data) {
            Some(scan) => scan,
            None => self.scan_any(data),
        }
    }

    /// Any line.
    fn scan_any(&mut self, data: &[u8]) -> Scan {
        if data.first() == Some(&0x80) {
            return Scan::Close(Fault::Binary);
        }
        let reach = data.len().min(TEXT_KEYS_LINE_MAX + 2);
        let Some(end) = memchr::memchr(b'\n', &data[..reach]) else {
            let is_too_long = data.len() > line_max(data) + 1;
            return if is_too_long {
                Scan::Close(Fault::LineTooLong)
            } else {
                Scan::Partial
            };
        };
        let line = if end > 0 && data[end - 1] == b'\r' {
            end - 1
        } else {
            end
        };
        if line > line_max(data) {
            return Scan::Close(Fault::LineTooLong);
        }
        let is_plain = self.split(&data[..line]);
        if is_http(&data[..line]) {
            return Scan::Close(Fault::Http);
        }
        let Some(command) = self.words.first().and_then(|word| find(bytes(data, *word))) else {
            return Scan::Refused {
                len: end + 1,
                line: ERROR,
                is_mute: false,
            };
        };
        if !is_plain {
            let size = self.announced(data, command);
            return passed_over(data, end + 1, size, BAD_FORMAT, false);
        }
        self.understood(data, line, end + 1, command)
    }

    /// The length of the data behind a line that we refuse and a server might not; None when a server would not read any either.
    fn announced(&self, data: &[u8], command: &TextCommand) -> Option<usize> {
        let index = match command.shape {
            Shape::Store | Shape::Compare => 4,
            Shape::MetaStore => 2,
            _ => return None,
        };
        let text = bytes(data, *self.words.get(index)?);
        size(text.strip_prefix(b"+").unwrap_or(text))
    }

    /// A line that begins with a command, and the data behind it.
    #[inline]
    fn understood(
        &mut self,
        data: &[u8],
        line: usize,
        block: usize,
        command: &'static TextCommand,
    ) -> Scan {
        let all = self.words.len();
        let (words, is_mute, size) = match self.judge(data, command) {
            Verdict::Line { words, is_mute } => (words, is_mute, None),
            Verdict::Block {
                words,
                is_mute,
                size,
            } => (words, is_mute, Some(size)),
            Verdict::Refused {
                line,
                is_mute,
                size,
            } => return passed_over(data, block, size, line, is_mute),
        };
        self.words.truncate(words);
        let mut len = block;
        if let Some(size) = size {
            if size > TEXT_VALUE_MAX {
                return Scan::Close(Fault::ValueTooLarge);
            }
            len += size + 2;
            if data.len() < len {
                return Scan::Partial;
            }
            if data[len - 2..len] != *b"\r\n" {
                // As a server: what was announced is gone, what follows is read as requests.
                let is_mute = is_mute && command.shape != Shape::MetaStore;
                return Scan::Refused {
                    len,
                    line: BAD_CHUNK,
                    is_mute,
                };
            }
        }
        Scan::Whole {
            len,
            line,
            block,
            command,
            is_mute,
            is_rewritten: words != all,
        }
    }

    /// Finds the words; false when there is a byte in the line that no server should be shown.
    #[inline]
    fn split(&mut self, line: &[u8]) -> bool {
        self.words.clear();
        let mut is_plain = true;
        let mut start = 0;
        for (at, &byte) in line.iter().enumerate() {
            if byte == b' ' {
                if at > start {
                    self.words.push(Word {
                        start: start as u32,
                        len: (at - start) as u32,
                    });
                }
                start = at + 1;
            } else if byte < b' ' || byte == 0x7f {
                is_plain = false;
            }
        }
        if line.len() > start {
            self.words.push(Word {
                start: start as u32,
                len: (line.len() - start) as u32,
            });
        }
        is_plain
    }

    /// One arm for each shape.
    #[inline]
    fn judge(&self, data: &[u8], command: &TextCommand) -> Verdict {
        let count = self.words.len();
        let word = |index: usize| {
            self.words
                .get(index)
                .map_or(&b""[..], |word| bytes(data, *word))
        };
        let is_mute = count > 1 && word(count - 1) == b"noreply";
        let is_key_bad = |index: usize| word(index).len() > TEXT_KEY_MAX;
        let whole = Verdict::Line {
            words: count,
            is_mute: false,
        };
        match command.shape {
            Shape::Keys | Shape::TimeKeys => {
                let first = if command.shape == Shape::Keys { 1 } else { 2 };
                if count < first.max(2) {
                    return refused(ERROR, false);
                }
                if first == 2 && signed(word(1)).is_none() {
                    return refused(BAD_TIME, false);
                }
                if (first..count).any(is_key_bad) {
                    return refused(BAD_FORMAT, false);
                }
                whole
            }
            Shape::Store => self.judge_store(data, 5, is_mute),
            Shape::Compare => self.judge_store(data, 6, is_mute),
            Shape::Delete => self.judge_delete(data, is_mute),
            Shape::Delta | Shape::Touch => {
                if !(3..=4).contains(&count) {
                    refused(ERROR, is_mute)
                } else if is_key_bad(1) {
                    refused(BAD_FORMAT, is_mute)
                } else if command.shape == Shape::Delta && unsigned(word(2)).is_none() {
                    refused(BAD_DELTA, is_mute)
                } else if command.shape == Shape::Touch && signed(word(2)).is_none() {
                    refused(BAD_TIME, is_mute)
                } else {
                    Verdict::Line { words: 3, is_mute }
                }
            }
            Shape::Flush => self.judge_flush(data, is_mute),
            Shape::Verbosity => self.judge_verbosity(data, is_mute),
            Shape::Meta => self.judge_meta(data),
            Shape::MetaStore => self.judge_meta_store(data),
            // None of them is sent with more.
            Shape::Stats | Shape::Version | Shape::Quit | Shape::Refused => Verdict::Line {
                words: count.min(2),
                is_mute: false,
            },
            Shape::MetaNothing => whole,
        }
    }

    /// `name key [0] [noreply]`
    fn judge_delete(&self, data: &[u8], is_mute: bool) -> Verdict {
        let count = self.words.len();
        let word = |index: usize| {
            self.words
                .get(index)
                .map_or(&b""[..], |word| bytes(data, *word))
        };
        // A key may be called noreply.
        let is_mute = is_mute && count > 2;
        let is_usual = count == 2 || word(2) == b"0" || (count == 3 && is_mute);
        if !(2..=4).contains(&count) {
            refused(ERROR, is_mute)
        } else if !is_usual || (count == 4 && !is_mute) {
            refused(BAD_DELETE, is_mute)
        } else if word(1).len() > TEXT_KEY_MAX {
            refused(BAD_FORMAT, is_mute)
        } else {
            Verdict::Line { words: 2, is_mute }
        }
    }

    /// `name [delay] [noreply]`
    fn judge_flush(&self, data: &[u8], is_mute: bool) -> Verdict {
        let count = self.words.len();
        let word = |index: usize| {
            self.words
                .get(index)
                .map_or(&b""[..], |word| bytes(data, *word))
        };
        let arguments = count - 1 - usize::from(is_mute);
        if count > 3 {
            refused(ERROR, is_mute)
        } else if arguments > 0 && signed(word(1)).is_none() {
            refused(BAD_TIME, is_mute)
        } else {
            Verdict::Line {
                words: 1 + arguments.min(1),
                is_mute,
            }
        }
    }

    /// `name level [noreply]`
    fn judge_verbosity(&self, data: &[u8], is_mute: bool) -> Verdict {
        let count = self.words.len();
        let word = |index: usize| {
            self.words
                .get(index)
                .map_or(&b""[..], |word| bytes(data, *word))
        };
        if count < 2 {
            refused(ERROR, is_mute)
        } else if unsigned(word(1)).is_none() {
            refused(
                if is_mute && count == 2 {
                    ERROR
                } else {
                    BAD_FORMAT
                },
                is_mute,
            )
        } else {
            Verdict::Line { words: 2, is_mute }
        }
    }

    /// `name key flags exptime bytes [unique] [noreply]`; `least` words without `noreply`.
    #[inline]
    fn judge_store(&self, data: &[u8], least: usize, is_mute: bool) -> Verdict {
        let count = self.words.len();
        let word = |index: usize| bytes(data, self.words[index]);
        if count < least || count > least + 1 {
            return refused(ERROR, is_mute);
        }
        let is_good = word(1).len() <= TEXT_KEY_MAX
            && unsigned(word(2)).is_some_and(|flags| flags <= u64::from(u32::MAX))
            && signed(word(3)).is_some()
            && (least == 5 || unsigned(word(5)).is_some());
        match size(word(4)) {
            Some(size) if is_good => Verdict::Block {
                words: least,
                is_mute: is_mute && count > least,
                size,
            },
            // What we take for no number may be one for a server: then the data must not become requests.
            _ => Verdict::Refused {
                line: BAD_FORMAT,
                is_mute,
                size: self.numbers_for_a_server(data, least),
            },
        }
    }

    /// The length of the data of a line whose numbers are too large or have a `+`: servers accept some of these.
    fn numbers_for_a_server(&self, data: &[u8], least: usize) -> Option<usize> {
        let word = |index: usize| bytes(data, self.words[index]);
        let is_number = |index: usize| is_number_for_a_server(word(index));
        let text = word(4).strip_prefix(b"+").unwrap_or(word(4));
        let are_numbers = [2, 3]
            .iter()
            .chain((least > 5).then_some(&5))
            .all(|&index| is_number(index));
        (word(1).len() <= TEXT_KEY_MAX && are_numbers)
            .then(|| size(text))
            .flatten()
    }

    /// One line with flags. Which flags there are is the server's business: it answers with one line whatever they are.
    fn judge_meta(&self, data: &[u8]) -> Verdict {
        let count = self.words.len();
        let word = |index: usize| bytes(data, self.words[index]);
        if count < 2 {
            return refused(ERROR, false);
        }
        if word(1).len() > TEXT_KEY_MAX {
            return refused(BAD_FORMAT, false);
        }
        match self.flags(data, 2) {
            Ok(is_mute) => Verdict::Line {
                words: count,
                is_mute,
            },
            Err(line) => refused(line, false),
        }
    }

    /// A line with flags and data: all of it must be beyond doubt, because data follows it.
    fn judge_meta_store(&self, data: &[u8]) -> Verdict {
        let count = self.words.len();
        let word = |index: usize| bytes(data, self.words[index]);
        if count < 2 {
            return refused(ERROR, false);
        }
        let size = (count > 2 && word(1).len() <= TEXT_KEY_MAX)
            .then(|| size(word(2)))
            .flatten();
        let Some(size) = size else {
            let signed = (count > 2).then(|| word(2).strip_prefix(b"+")).flatten();
            return Verdict::Refused {
                line: BAD_FORMAT,
                is_mute: false,
                size: signed.and_then(self::size),
            };
        };
        let skipped = |line| Verdict::Refused {
            line,
            is_mute: false,
            size: Some(size),
        };
        let is_mute = match self.flags(data, 3) {
            Ok(is_mute) => is_mute,
            Err(line) => return skipped(line),
        };
        for index in 3..count {
            let (flag, token) = (word(index)[0], &word(index)[1..]);
            let complaint = match flag {
                b'b' | b'c' | b'k' | b'q' | b's' | b'I' | b'O' => None,
                b'C' | b'E' | b'F' => unsigned(token).is_none().then_some(BAD_TOKEN),
                b'T' | b'N' => signed(token).is_none().then_some(BAD_TOKEN),
                b'M' => (!is_mode(token)).then_some(BAD_MODE),
                _ => Some(BAD_FLAG),
            };
            if let Some(line) = complaint {
                return skipped(line);
            }
        }
        Verdict::Block {
            words: count,
            is_mute,
            size,
        }
    }

    /// Looks at what all meta commands have in common; whether the request is quiet.
    fn flags(&self, data: &[u8], first: usize) -> Result<bool, &'static [u8]> {
        let mut seen = 0u128;
        for word in self.words.iter().skip(first) {
            let flag = bytes(data, *word)[0];
            if !flag.is_ascii_alphabetic() {
                return Err(BAD_FLAG);
            }
            let bit = 1u128 << (flag & 127);
            if seen & bit != 0 {
                return Err(TWICE);
            }
            seen |= bit;
        }
        let has = |flag: u8| seen & (1u128 << flag) != 0;
        if has(b'b') && decoded(bytes(data, self.words[1])).is_none() {
            return Err(BAD_BASE64);
        }
        Ok(has(b'q'))
    }
}

/// A refused line, and the data that came with it.
fn passed_over(
    data: &[u8],
    block: usize,
    size: Option<usize>,
    line: &'static [u8],
    is_mute: bool,
) -> Scan {
    if size.is_some_and(|size| size > TEXT_VALUE_MAX) {
        return Scan::Close(Fault::ValueTooLarge);
    }
    let len = block + size.map_or(0, |size| size + 2);
    if len > data.len() {
        return Scan::Partial;
    }
    Scan::Refused { len, line, is_mute }
}

/// A request's key as the server knows it, if it is one; meta commands may have it in base 64.
pub fn meta_key<'d>(data: &'d [u8], words: &[Word]) -> std::borrow::Cow<'d, [u8]> {
    let written = words.get(1).map_or(&b""[..], |word| bytes(data, *word));
    let is_encoded = words
        .iter()
        .skip(2)
        .any(|word| bytes(data, *word).first() == Some(&b'b'));
    match decoded(written) {
        Some(key) if is_encoded => key.into(),
        _ => written.into(),
    }
}

fn decoded(written: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD
        .decode(written)
        .ok()?;
    (!key.is_empty()).then_some(key)
}

/// A word of the line that `data` begins with.
#[inline]
pub fn bytes(data: &[u8], word: Word) -> &[u8] {
    data.get(word.start as usize..(word.start + word.len) as usize)
        .unwrap_or_default()
}

fn is_mode(token: &[u8]) -> bool {
    matches!(
        token.first(),
        Some(b'E' | b'e' | b'A' | b'a' | b'P' | b'p' | b'R' | b'r' | b'S' | b's')
    )
}

#[inline]
fn line_max(data: &[u8]) -> usize {
    if data.len() <= TEXT_LINE_MAX {
        return TEXT_LINE_MAX;
    }
    // Only these two: a server closes the connection, which others use, when any other line is longer than this.
    let is_keys = data.starts_with(b"get ") || data.starts_with(b"gets ");
    if is_keys {
        TEXT_KEYS_LINE_MAX
    } else {
        TEXT_LINE_MAX
    }
}

/// A web page may be made to send this through somebody's browser.
fn is_http(line: &[u8]) -> bool {
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") || line.starts_with(b"Host:")
}
