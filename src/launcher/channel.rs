//! The launcher's end of the socketpair to the daemon: lines in and out, never waiting, everything bounded.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use super::verbs::{MAX_LINE, Request, Told};

/// Unread answers beyond this mean that the daemon hangs; further ones are dropped.
const MAX_UNSENT: usize = 2 * MAX_LINE;
/// Taken at once, so that a talkative daemon does not keep the launcher from its other work.
const TURN: usize = 64 * 1024;

/// One connection.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// The peer closed it, or broke the rules.
    pub broken: bool,
}

impl Channel {
    /// Takes over our end.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, received: Vec::new(), unsent: Vec::new(), broken: false })
    }

    /// The socket, to wait on.
    pub fn socket(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether there is something to write once the peer reads.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Reads what is there and returns the requests that are complete.
    pub fn receive(&mut self) -> Vec<Request> {
        let mut buffer = [0u8; 4096];
        let before = self.received.len();
        while !self.broken && self.received.len() - before < TURN {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.broken = true,
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.broken = true,
            }
        }
        let mut requests = Vec::new();
        while let Some(end) = self.received.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(request) => requests.push(request),
                Err(e) => {
                    tracing::error!(error = %e, "the daemon asks for something that does not exist");
                    self.broken = true;
                }
            }
        }
        // Requests are small; only answers may be long.
        self.broken |= self.received.len() > TURN;
        requests
    }

    /// Sends, or keeps for later what the peer does not take now.
    pub fn send(&mut self, told: &Told) {
        if self.unsent.len() > MAX_UNSENT {
            return;
        }
        match serde_json::to_vec(told) {
            Ok(line) => {
                self.unsent.extend_from_slice(&line);
                self.unsent.push(b'\n');
                self.flush();
            }
            Err(e) => tracing::error!(error = %e, "an answer to the daemon cannot be written"),
        }
    }

    /// Writes what the peer takes now.
    pub fn flush(&mut self) {
        while !self.unsent.is_empty() && !self.broken {
            match self.stream.write(&self.unsent) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.broken = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::verbs::Verb;
    use super::*;

    fn pair() -> (Channel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Channel::new(ours).unwrap(), theirs)
    }

    #[test]
    fn requests_arrive_whole_however_they_are_cut() {
        let (mut channel, mut peer) = pair();
        peer.write_all(b"{\"id\":1,\"verb\":\"st").unwrap();
        assert!(channel.receive().is_empty());
        peer.write_all(b"art\"}\n{\"id\":2,\"verb\":\"stop\"}\n{").unwrap();
        let verbs: Vec<Verb> = channel.receive().into_iter().map(|r| r.verb).collect();
        assert_eq!(verbs, [Verb::Start, Verb::Stop]);
        assert!(!channel.broken);
    }

    #[test]
    fn nonsense_and_endless_lines_break_the_channel() {
        let (mut channel, mut peer) = pair();
        peer.write_all(b"{\"id\":1,\"verb\":\"exec\"}\n").unwrap();
        assert!(channel.receive().is_empty() && channel.broken);
        let (mut channel, mut peer) = pair();
        peer.set_nonblocking(true).unwrap();
        while !channel.broken {
            let _ = peer.write(&[b'x'; 4096]);
            channel.receive();
        }
    }

    #[test]
    fn a_peer_that_does_not_read_costs_bounded_memory() {
        let (mut channel, _peer) = pair();
        let long = "x".repeat(MAX_LINE / 2);
        for id in 0..100 {
            channel.send(&Told::Reply { id, result: Err(long.clone()) });
        }
        assert!(channel.unsent.len() < 2 * MAX_UNSENT && !channel.broken);
    }
}
