//! The children's output: forwarded to ours without ever waiting for a reader, the last lines kept for a diagnosis.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::secret::Secret;

/// A longer line is cut into pieces of this many bytes.
const MAX_LINE: u64 = 8 * 1024;
/// Lines waiting for whoever reads our output; further ones are dropped and counted. At most 2 MiB.
const QUEUE: usize = 256;
/// Lines of the gateway kept for a diagnosis, each cut at [`KEPT_CHARS`].
const KEPT_LINES: usize = 20;
const KEPT_CHARS: usize = 300;
/// Shorter secrets are words that texts are full of.
const SHOWN_BELOW: usize = 6;
/// Threads that only copy bytes need little.
const STACK: usize = 64 * 1024;

/// Where a line goes.
#[derive(Clone, Copy, Debug)]
pub enum To {
    /// The gateway's output.
    Stdout,
    /// Ours, and the daemon's.
    Stderr,
}

#[derive(Debug)]
enum Item {
    Line(To, Vec<u8>),
    /// Everything before it was written.
    Mark(SyncSender<()>),
}

/// The forwarder; cheap to clone.
#[derive(Clone, Debug)]
pub struct Output {
    queue: SyncSender<Item>,
    /// As they were printed: what is secret among them is known only after the gateway began, which may have spoken by then.
    kept: Arc<Mutex<VecDeque<Vec<u8>>>>,
    dropped: Arc<AtomicU64>,
    hidden: Arc<Mutex<Vec<Secret>>>,
}

impl Output {
    /// Starts the one thread that writes, and so the one that may have to wait.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> std::io::Result<Self> {
        let (queue, items) = sync_channel(QUEUE);
        let write = move || {
            for item in items {
                // Nobody reads any more: the line is lost, the gateway goes on.
                let _ = match item {
                    Item::Line(To::Stdout, line) => {
                        std::io::stdout().write_all(&line).and_then(|()| std::io::stdout().flush())
                    }
                    Item::Line(To::Stderr, line) => std::io::stderr().write_all(&line),
                    Item::Mark(written) => written.send(()).map_err(std::io::Error::other),
                };
            }
        };
        std::thread::Builder::new().name("output".to_owned()).stack_size(STACK).spawn(write)?;
        Ok(Self { queue, kept: Arc::default(), dropped: Arc::default(), hidden: Arc::default() })
    }

    /// Forwards everything that comes out of `pipe` until its end, which closes the channel; with `keep`, its last lines
    /// are remembered.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn follow(&self, pipe: impl Read + Send + 'static, to: To, keep: bool) -> std::io::Result<Receiver<()>> {
        let output = self.clone();
        let (end, ended) = sync_channel(0);
        let read = move || {
            // Closed, never sent on, when the thread ends.
            let _end: SyncSender<()> = end;
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while matches!((&mut pipe).take(MAX_LINE).read_until(b'\n', &mut line), Ok(1..)) {
                if keep {
                    output.keep(&line);
                }
                output.put(to, std::mem::take(&mut line));
            }
        };
        std::thread::Builder::new().name("follow".to_owned()).stack_size(STACK).spawn(read).map(|_| ended)
    }

    fn put(&self, to: To, line: Vec<u8>) {
        if self.queue.try_send(Item::Line(to, line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn keep(&self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(line.to_owned());
    }

    /// From now on these are in no line that is shown.
    pub fn hide(&self, secrets: Vec<Secret>) {
        *self.hidden.lock().unwrap_or_else(PoisonError::into_inner) = secrets;
    }

    /// A line for people: without what is known to be secret, and without what looks like it.
    pub fn redact(&self, line: &str) -> String {
        let hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        let known = hidden.iter().filter(|secret| secret.expose().len() >= SHOWN_BELOW);
        redact(&known.fold(line.to_owned(), |line, secret| line.replace(secret.expose(), "[redacted]")))
    }

    /// Forgets the gateway's last lines: what comes now is another one's.
    pub fn forget_last_lines(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The gateway's last lines so far, oldest first, for people.
    pub fn last_lines(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let shown = kept.iter().map(|line| self.redact(&String::from_utf8_lossy(line)));
        shown.filter(|line| !line.is_empty()).collect()
    }

    /// Waits until what was put so far is written, but not longer than `most`.
    pub fn finish(&self, most: Duration) {
        let (mark, written) = sync_channel(1);
        if self.queue.try_send(Item::Mark(mark)).is_ok() {
            let _ = written.recv_timeout(most);
        }
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Our own log lines go the same way.
impl Write for Output {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.put(To::Stderr, line.to_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A line for people, without colours, control characters and anything that looks like a credential.
pub fn redact(line: &str) -> String {
    let (mut shown, mut word) = (String::new(), String::new());
    let mut next = Next::Anything;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // An escape sequence: up to its final letter.
            while chars.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
            chars.next();
        } else if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+') {
            word.push(c);
        } else if !c.is_control() || c == '\t' {
            next = end_word(&mut word, next, &mut shown).then(c);
            shown.push(c);
        }
    }
    end_word(&mut word, next, &mut shown);
    shown.trim().chars().take(KEPT_CHARS).collect()
}

/// Names whose value is never shown.
const NAMES: [&str; 6] = ["token", "password", "secret", "apikey", "api_key", "authorization"];

/// What the next word may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Anything,
    /// A name that says secret was read: a value, if a sign of assignment follows.
    PerhapsSecret,
    Secret,
}

impl Next {
    /// Between a name and its value stand only a sign, quotes and blanks.
    fn then(self, c: char) -> Self {
        match (self, c) {
            (Self::PerhapsSecret, ':' | '=') => Self::Secret,
            (waiting, ' ' | '"' | '\'') => waiting,
            _ => Self::Anything,
        }
    }
}

/// Ends a word, if one was begun.
fn end_word(word: &mut String, next: Next, shown: &mut String) -> Next {
    if word.is_empty() {
        return next;
    }
    let lower = word.to_ascii_lowercase();
    let follows = if lower == "bearer" {
        Next::Secret
    } else if NAMES.iter().any(|name| lower.ends_with(name)) {
        Next::PerhapsSecret
    } else {
        Next::Anything
    };
    let random = (word.len() >= 20 && word.bytes().any(|b| b.is_ascii_digit())) || word.len() >= 40;
    let secret = next == Next::Secret && follows == Next::Anything;
    shown.push_str(if random || secret { "[redacted]" } else { word });
    word.clear();
    follows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_credential_is_not_shown() {
        for (line, shown) in [
            ("\u{1b}[31mPort 18800 is already in use.\u{1b}[0m\n", "Port 18800 is already in use."),
            (
                "Config invalid: gateway: Unrecognized key: \"bananas\"",
                "Config invalid: gateway: Unrecognized key: \"bananas\"",
            ),
            ("token=tokA0123456789abcdef0123456789abcdef x", "token=[redacted] x"),
            ("{\"botToken\": \"12345\"}", "{\"botToken\": \"[redacted]\"}"),
            ("ANTHROPIC_API_KEY=sk-ant1", "ANTHROPIC_API_KEY=[redacted]"),
            ("Authorization: Bearer abc", "Authorization: Bearer [redacted]"),
            ("reason=token_mismatch auth=token device=no", "reason=token_mismatch auth=token device=no"),
            ("gateway token missing (set gateway.auth.token)", "gateway token missing (set gateway.auth.token)"),
            ("at file:///app/dist/index.js:12:34", "at file:///app/dist/index.js:12:34"),
        ] {
            assert_eq!(redact(line), shown);
        }
    }

    #[test]
    fn what_is_known_to_be_secret_later_is_not_shown_either() {
        let (queue, _nobody_reads) = sync_channel(QUEUE);
        let output = Output { queue, kept: Arc::default(), dropped: Arc::default(), hidden: Arc::default() };
        output.keep(b"the value of quartz lantern was refused\n");
        output.hide(vec![Secret::new("quartz lantern".to_owned())]);
        assert_eq!(output.last_lines(), ["the value of [redacted] was refused"]);
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_not_time() {
        let (queue, _nobody_reads) = sync_channel(QUEUE);
        let output = Output { queue, kept: Arc::default(), dropped: Arc::default(), hidden: Arc::default() };
        for n in 0..QUEUE + 100 {
            output.keep(format!("line {n}").as_bytes());
            output.put(To::Stdout, b"x\n".to_vec());
        }
        assert_eq!(output.dropped(), 100);
        let last = output.last_lines();
        assert_eq!(last.len(), KEPT_LINES);
        assert_eq!(last.last().unwrap(), &format!("line {}", QUEUE + 99));
        output.forget_last_lines();
        assert!(output.last_lines().is_empty());
    }
}
