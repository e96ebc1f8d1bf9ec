//! The generations of the desired state, as they lie on disk: the daemon writes the file, `seed` reads it.

use serde::{Deserialize, Serialize};

use super::document::Document;
use crate::clock::UnixMs;
use crate::config::Launch;
use crate::files;

/// Generations kept.
pub const KEPT: usize = 10;
/// The file in the sidecar's state directory.
pub const FILE: &str = "desired.json";
/// While a file of this name lies in the sidecar's state directory, the gateway is not started: its tenant is gone.
pub const DECOMMISSIONED: &str = "decommissioned";
/// Ten documents of 1 MiB, escaped.
pub const MAX_FILE: u64 = 32 * 1024 * 1024;
/// One document.
pub const MAX_DOCUMENT: u64 = 1024 * 1024;

/// What became of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The next start uses it.
    AtNextStart,
    /// The gateway became ready with it.
    Applied,
    /// The gateway did not become ready with it; an earlier one was used again.
    Failed,
}

const FIRST_BOOT: &str = "first_boot";

/// One generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Its number, from 1.
    pub generation: u64,
    /// When it was set.
    pub set_at: UnixMs,
    /// Whose credential set it; `first_boot` for the one the platform gave.
    pub set_by: String,
    /// What became of it.
    pub status: Outcome,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The document.
    pub document: Document,
}

/// All that are kept, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    generations: Vec<Generation>,
}

impl History {
    /// Reads the file's content.
    ///
    /// # Errors
    /// It is damaged.
    pub fn parse(text: &str) -> Result<Self, String> {
        crate::json::parse(text.as_bytes())
    }

    /// What the platform gave for the first boot: one generation, or none.
    ///
    /// # Errors
    /// The document cannot be read or is wrong; each fault names its field.
    pub fn first_boot(launch: &Launch) -> Result<Self, String> {
        let (key, text) = match (&launch.desired_file, &launch.desired) {
            (Some(path), _) => ("launch.desired_file", files::read_text(path, MAX_DOCUMENT).map_err(|e| e.to_string())),
            (None, Some(text)) => ("launch.desired", Ok(text.clone())),
            (None, None) => return Ok(Self::default()),
        };
        let document = text.and_then(|text| Document::parse(text.as_bytes())).and_then(|document| {
            let faults = document.faults();
            if faults.is_empty() { Ok(document) } else { Err(faults.join("; ")) }
        });
        let mut history = Self::default();
        history.push(document.map_err(|e| format!("{key}: {e}"))?, FIRST_BOOT);
        Ok(history)
    }

    /// Adds a document as the newest generation and forgets the oldest beyond [`KEPT`].
    pub fn push(&mut self, document: Document, set_by: &str) -> u64 {
        let generation = self.newest() + 1;
        self.generations.push(Generation {
            generation,
            set_at: UnixMs::now(),
            set_by: set_by.to_owned(),
            status: Outcome::AtNextStart,
            error: None,
            document,
        });
        let surplus = self.generations.len().saturating_sub(KEPT);
        // The one that works is never forgotten: it is what a failure goes back to.
        let works = self.generations.iter().rposition(|g| g.status == Outcome::Applied);
        for at in (0..surplus + usize::from(works.is_some())).rev() {
            if Some(at) != works && self.generations.len() > KEPT {
                self.generations.remove(at);
            }
        }
        generation
    }

    /// The newest number; 0 when there is none.
    pub fn newest(&self) -> u64 {
        self.generations.last().map_or(0, |g| g.generation)
    }

    /// One generation.
    pub fn get(&self, generation: u64) -> Option<&Generation> {
        self.generations.iter().find(|g| g.generation == generation)
    }

    /// The newest one.
    pub fn last(&self) -> Option<&Generation> {
        self.generations.last()
    }

    /// All of them, oldest first.
    pub fn all(&self) -> &[Generation] {
        &self.generations
    }

    /// What a start uses: the newest that did not fail and is not `avoid`. Where there is none, what the platform gave
    /// for the first boot all the same: before it there was nothing, and nothing is not what anybody asked for.
    pub fn to_use(&self, avoid: Option<u64>) -> Option<&Generation> {
        let usable = |g: &&Generation| g.status != Outcome::Failed && Some(g.generation) != avoid;
        let given = || self.generations.iter().find(|g| g.set_by == FIRST_BOOT);
        self.generations.iter().rev().find(usable).or_else(given)
    }

    /// Notes what became of a generation; tells whether that is news.
    pub fn settle(&mut self, generation: u64, status: Outcome, error: Option<String>) -> bool {
        let found = self.generations.iter_mut().find(|g| g.generation == generation);
        let Some(found) = found.filter(|g| g.status != status) else { return false };
        (found.status, found.error) = (status, error);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_platform_gave_is_used_where_nothing_else_is_left() {
        let mut history = History::default();
        history.push(Document::default(), FIRST_BOOT);
        assert_eq!(history.to_use(Some(1)).unwrap().generation, 1);
        history.settle(1, Outcome::Failed, Some("x".into()));
        assert_eq!(history.to_use(None).unwrap().generation, 1);
        assert!(history.settle(1, Outcome::Applied, None), "it became ready after all");
    }

    #[test]
    fn failures_are_stepped_over_and_the_working_one_is_kept() {
        let mut history = History::default();
        assert!(history.to_use(None).is_none());
        assert_eq!(history.push(Document::default(), "a"), 1);
        history.settle(1, Outcome::Applied, None);
        for n in 2..=15 {
            assert_eq!(history.push(Document::default(), "a"), n);
            history.settle(n, Outcome::Failed, Some("x".into()));
        }
        assert_eq!(history.all().len(), KEPT);
        assert_eq!(history.to_use(None).unwrap().generation, 1);
        assert!(!history.settle(15, Outcome::Failed, None), "no news");
        history.push(Document::default(), "a");
        assert_eq!(history.to_use(None).unwrap().generation, 16);
        assert_eq!(history.to_use(Some(16)).unwrap().generation, 1);
        let text = serde_json::to_string(&history).unwrap();
        assert_eq!(History::parse(&text).unwrap(), history);
        assert!(History::parse("{").is_err());
    }
}
