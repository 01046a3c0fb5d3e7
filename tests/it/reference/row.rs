//! One row of the table: what the reference does, and the verdict on what this broker does.

use serde_json::{Map, Value};

use super::ROWS;

/// How this broker stands to the reference in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It does the same.
    Match,
    /// It does not have the fault that is named here.
    Mended(&'static str),
}

/// One row; a test has to say what it saw by [`Row::matches`] or [`Row::mends`].
pub struct Row {
    key: &'static str,
    outcome: Outcome,
    /// What the reference does.
    pub there: Value,
}

/// Proof that a row was held against what was seen.
pub struct Judged;

/// All that was observed on the reference.
pub fn reference() -> Map<String, Value> {
    serde_json::from_str(include_str!("../../reference-behaviour.json")).unwrap()
}

impl Row {
    pub fn of(key: &'static str) -> Self {
        let (_, outcome) = ROWS.iter().find(|(row, _)| *row == key).unwrap();
        Self { key, outcome: *outcome, there: reference()[key].clone() }
    }

    /// This broker does as the reference.
    #[track_caller]
    pub fn matches(self, here: impl Into<Value>) -> Judged {
        assert_eq!(self.outcome, Outcome::Match, "{}", self.key);
        assert_eq!(here.into(), self.there, "{}", self.key);
        Judged
    }

    /// This broker does `expected`, which the reference does not.
    #[track_caller]
    pub fn mends(self, here: impl Into<Value>, expected: impl Into<Value>) -> Judged {
        let Self { key, outcome, there } = self;
        let expected = expected.into();
        assert_eq!(here.into(), expected, "{key}");
        assert_ne!(expected, there, "{key} is no fault of the reference");
        assert!(matches!(outcome, Outcome::Mended(_)), "{key} is said to match");
        Judged
    }

    /// What the reference does with one thing in it changed.
    pub fn there_but(&self, pointer: &str, value: impl Into<Value>) -> Value {
        let mut there = self.there.clone();
        *there.pointer_mut(pointer).unwrap() = value.into();
        there
    }
}
