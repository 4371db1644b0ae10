//! What runs did to a provider, one line a step.
//!
//! A line is written before a step is taken and after it, so that a run that ended anywhere leaves word of what it had
//! done, and of the one step of which nobody knows. What was made stays in the journal with its identifier and the
//! fields that we gave it: whatever is otherwise later was changed by others.
//!
//! The last line may be torn, where a machine stopped within it; any other line that cannot be read refuses the whole.

use std::collections::BTreeMap;

use model::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the lines that this runtime writes and reads.
pub const VERSION: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// [`VERSION`].
    pub v: u32,
    /// When.
    pub at: UnixMillis,
    /// Which run: a word of its own for each.
    pub run: String,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run begins, with these steps ahead.
    Begun {
        /// The steps, by name.
        steps: Vec<String>,
    },
    /// A step is about to be taken.
    Started {
        /// Its name.
        step: String,
    },
    /// A step was taken.
    Done {
        /// Its name.
        step: String,
        /// What is there now.
        kept: Vec<Kept>,
        /// The addresses of what is there no more.
        dropped: Vec<String>,
    },
    /// A step failed, and the run with it.
    Failed {
        /// Its name.
        step: String,
        /// Why.
        error: String,
    },
    /// A run came to its end.
    Ended,
    /// All that earlier lines came to, in place of them.
    Compacted {
        /// What is there.
        kept: Vec<Kept>,
    },
}

/// Something that we made or changed, as we left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What it is: `pool/us-east`.
    pub address: String,
    /// The provider's identifier.
    pub id: String,
    /// The fields that we gave it, references resolved.
    pub body: Value,
}

/// What a journal comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What we left, by address.
    pub kept: BTreeMap<String, Kept>,
    /// The last run, if it did not come to its end.
    pub unfinished: Option<Unfinished>,
}

/// A run that did not come to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// Its word.
    pub run: String,
    /// The steps that it was to take.
    pub planned: Vec<String>,
    /// The steps that it took.
    pub done: Vec<String>,
    /// The step that it had begun, of which nobody knows whether it was taken.
    pub in_doubt: Option<String>,
    /// Why it failed, where it could still say so.
    pub error: Option<String>,
}

/// A journal that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} cannot be read: {why}")]
pub struct Damaged {
    /// From 1.
    pub line: usize,
    /// Why.
    pub why: String,
}

impl Line {
    /// The line as it is written, with its end.
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string(self).expect("a line is plain data");
        text.push('\n');
        text
    }
}

/// What the lines of a journal come to.
///
/// # Errors
/// A line that cannot be read and is not the last, torn one.
pub fn replay(text: &str) -> Result<State, Damaged> {
    let mut state = State::default();
    for (at, line) in text.split_inclusive('\n').enumerate() {
        if !line.ends_with('\n') {
            break;
        }
        let damaged = |why: String| Damaged { line: at + 1, why };
        let line: Line = serde_json::from_str(line).map_err(|error| damaged(error.to_string()))?;
        if line.v != VERSION {
            return Err(damaged(format!("it is of version {}, and this runtime reads {VERSION}", line.v)));
        }
        state.take(line);
    }
    Ok(state)
}

impl State {
    /// Takes a line into account.
    pub fn take(&mut self, line: Line) {
        let run = line.run;
        match line.event {
            Event::Begun { steps } => {
                self.unfinished = Some(Unfinished { run, planned: steps, ..Unfinished::default() });
            }
            Event::Started { step } => self.running(|now| now.in_doubt = Some(step)),
            Event::Done { step, kept, dropped } => {
                self.kept.extend(kept.into_iter().map(|kept| (kept.address.clone(), kept)));
                dropped.iter().for_each(|address| drop(self.kept.remove(address)));
                self.running(|now| {
                    now.in_doubt = None;
                    now.done.push(step);
                });
            }
            Event::Failed { error, .. } => self.running(|now| now.error = Some(error)),
            Event::Ended => self.unfinished = None,
            Event::Compacted { kept } => {
                self.kept = kept.into_iter().map(|kept| (kept.address.clone(), kept)).collect();
                self.unfinished = None;
            }
        }
    }

    fn running(&mut self, change: impl FnOnce(&mut Unfinished)) {
        if let Some(now) = &mut self.unfinished {
            change(now);
        }
    }

    /// One line that says the same.
    pub fn compacted(&self, at: UnixMillis, run: &str) -> Line {
        let kept = self.kept.values().cloned().collect();
        Line { v: VERSION, at, run: run.to_owned(), event: Event::Compacted { kept } }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(event: Event) -> String {
        Line { v: VERSION, at: UnixMillis(1), run: "a".into(), event }.to_text()
    }

    fn kept(address: &str) -> Kept {
        Kept { address: address.into(), id: "1".into(), body: json!({"x": 1}) }
    }

    #[test]
    fn a_run_that_ended_in_the_middle_tells_what_it_had_done_and_what_is_in_doubt() {
        let text = line(Event::Begun { steps: vec!["one".into(), "two".into()] })
            + &line(Event::Started { step: "one".into() })
            + &line(Event::Done { step: "one".into(), kept: vec![kept("pool/a")], dropped: vec![] })
            + &line(Event::Started { step: "two".into() });
        let state = replay(&text).unwrap();
        let unfinished = state.unfinished.clone().unwrap();
        assert_eq!((unfinished.done, unfinished.in_doubt), (vec!["one".to_owned()], Some("two".to_owned())));
        assert!(state.kept.contains_key("pool/a"));
        // Whatever a machine left of its last line changes nothing.
        let torn = line(Event::Ended);
        for cut in 0..torn.len() {
            assert_eq!(replay(&format!("{text}{}", &torn[..cut])).unwrap(), state);
        }
        assert_eq!(replay(&(text + &torn)).unwrap().unfinished, None);
    }

    #[test]
    fn a_line_that_cannot_be_read_refuses_the_whole() {
        let text = line(Event::Ended) + "{\n" + &line(Event::Ended);
        assert_eq!(replay(&text).unwrap_err().line, 2);
        assert!(replay(&line(Event::Ended).replace("\"v\":1", "\"v\":2")).is_err());
    }

    #[test]
    fn a_compacted_journal_says_the_same() {
        let text = line(Event::Begun { steps: vec![] })
            + &line(Event::Done { step: "s".into(), kept: vec![kept("a"), kept("b")], dropped: vec![] })
            + &line(Event::Done { step: "t".into(), kept: vec![], dropped: vec!["a".into()] })
            + &line(Event::Ended);
        let state = replay(&text).unwrap();
        assert_eq!(state.kept.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(replay(&state.compacted(UnixMillis(2), "c").to_text()).unwrap(), state);
    }
}
