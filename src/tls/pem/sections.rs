//! Finds the sections of PEM text (RFC 7468), of which none is lost.
//!
//! The parser of rustls knows a section only where a line begins with its marker, and passes over what it does not know.
//! Files are put together with `cat`, whatever their last bytes are, and edited by hand: a chain of which a part was
//! passed over is served without its issuer.

use memchr::memmem;
use tokio_rustls::rustls::pki_types::pem::{SectionKind, from_buf};

use super::problem::Problem;

const DASHES: &[u8] = b"-----";
/// The shortest line that is full of base64.
const FULL_LINE: usize = 64;

/// What is between -----BEGIN and -----END.
pub struct Section<'a> {
    pub label: String,
    text: &'a [u8],
    start: usize,
    body: &'a [u8],
}

impl Section<'_> {
    /// Returns the line in which it begins, counted from 1.
    pub fn line(&self) -> usize {
        line_of(self.text, self.start)
    }

    /// Decodes the section as one of those that rustls knows by `label`.
    pub fn der(&self, label: &str) -> Result<Vec<u8>, Problem> {
        let (begin, end) = (format!("-----BEGIN {label}-----\n"), format!("\n-----END {label}-----\n"));
        let text = [begin.as_bytes(), self.body, end.as_bytes()].concat();
        let section: Option<(SectionKind, _)> = from_buf(&mut &*text).ok().flatten();
        let damaged = || Problem::Broken { line: self.line(), flaw: "what begins there is not in base64" };
        section.map(|(_, der)| der).ok_or_else(damaged)
    }

    /// Whether OpenSSL has encrypted it in its older way, with a header that base64 does not have.
    pub fn has_password(&self) -> bool {
        memmem::find(self.body, b"Proc-Type: 4,ENCRYPTED").is_some()
    }
}

/// Returns the sections of `text`, whose markers may be anywhere in a line.
pub fn sections(text: &[u8]) -> Result<Vec<Section<'_>>, Problem> {
    let broken = |at, flaw| Err(Problem::Broken { line: line_of(text, at), flaw });
    let (mut sections, mut from) = (Vec::new(), 0);
    while let Some(begin) = marker(text, from)? {
        outside(text, from, begin.start)?;
        if begin.is_end {
            return broken(begin.start, "an -----END line has no -----BEGIN line");
        }
        let end = match marker(text, begin.end) {
            Ok(Some(end)) if end.is_end && end.label == begin.label => end,
            _ => return broken(begin.start, "what begins there has no -----END line"),
        };
        let label = String::from_utf8_lossy(begin.label).into_owned();
        let body = &text[begin.end..end.start];
        sections.push(Section { label, text, start: begin.start, body });
        from = end.end;
    }
    outside(text, from, text.len())?;
    Ok(sections)
}

/// The line that begins a section, or ends it.
struct Marker<'a> {
    is_end: bool,
    label: &'a [u8],
    start: usize,
    end: usize,
}

/// Returns the first marker in `text` from `from` on.
fn marker(text: &[u8], from: usize) -> Result<Option<Marker<'_>>, Problem> {
    let find = |keyword: &[u8]| Some((from + memmem::find(&text[from..], keyword)?, keyword.len()));
    let found = [(find(b"-----BEGIN "), false), (find(b"-----END "), true)];
    let found = found.into_iter().filter_map(|(found, is_end)| Some((found?, is_end)));
    let Some(((start, length), is_end)) = found.min() else { return Ok(None) };
    let rest = &text[start + length..];
    let line = rest.split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
    match memmem::find(line, DASHES) {
        Some(label) => {
            let end = start + length + label + DASHES.len();
            Ok(Some(Marker { is_end, label: line[..label].trim_ascii(), start, end }))
        }
        None => Err(Problem::Broken {
            line: line_of(text, start),
            flaw: "a -----BEGIN or -----END line is cut short",
        }),
    }
}

/// Checks that what is outside of the sections is text for people: with a marker that is none, base64 is.
fn outside(text: &[u8], from: usize, to: usize) -> Result<(), Problem> {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    let mut at = from;
    for line in text[from..to].split(|byte| b"\r\n".contains(byte)) {
        let content = line.trim_ascii();
        if content.len() >= FULL_LINE && content.iter().all(is_base64) {
            let flaw = "there is base64 without a -----BEGIN line";
            return Err(Problem::Broken { line: line_of(text, at), flaw });
        }
        at += line.len() + 1;
    }
    Ok(())
}

fn line_of(text: &[u8], at: usize) -> usize {
    1 + text[..at].iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Result<Vec<(String, usize, Vec<u8>)>, String> {
        let sections = sections(text.as_bytes()).map_err(|problem| problem.to_string())?;
        sections
            .into_iter()
            .map(|section| {
                let der = section.der("CERTIFICATE").map_err(|problem| problem.to_string())?;
                Ok((section.label.clone(), section.line(), der))
            })
            .collect()
    }

    const ONE: &str = "-----BEGIN A-----\nAQID\n-----END A-----\n";
    const TWO: &str = "-----BEGIN B C-----\nBAUG\n-----END B C-----\n";

    #[test]
    fn no_section_is_lost_however_they_are_put_together() {
        let two = |text: String, second| {
            let expected = vec![("A".into(), 1, vec![1, 2, 3]), ("B C".into(), second, vec![4, 5, 6])];
            assert_eq!(found(&text), Ok(expected), "{text:?}");
        };
        let joined = ONE.trim_end();
        two(format!("{ONE}{TWO}"), 4);
        two(format!("{ONE}{TWO}").replace('\n', "\r\n"), 4);
        two(format!("{ONE}{TWO}").replace('\n', "\r"), 1);
        two(format!("{joined}{TWO}"), 3);
        two(format!("{joined} \t{TWO}"), 3);
        two(format!("\u{feff}{ONE}\u{feff}{TWO}"), 4);
        two(format!(" {ONE}\t {TWO}"), 4);
        two(format!("{ONE}# {TWO}"), 4);
        two(format!("{ONE}\n{TWO}").replace('\n', "\n    "), 5);
        two(format!("{ONE}{TWO}").replace('\n', ""), 1);
        two(format!("{ONE}subject=CN = ---- A ----\n\n-----\n{TWO}-- END --"), 7);
        two(format!("{ONE}{}\n{TWO}", "a-word ".repeat(20)), 5);
        two(format!("{ONE}{}\n{TWO}", "e".repeat(63)), 5);
        assert_eq!(found("hello"), Ok(vec![]));
    }

    #[test]
    fn what_is_not_whole_is_refused_with_its_line() {
        let long = "TUlJ".repeat(16);
        for (text, line, flaw) in [
            (ONE.replace("BEGIN A-----", "BEGIN A"), 1, "a -----BEGIN or -----END line is cut short"),
            (ONE.replace("BEGIN A-----", "BEGIN A----"), 1, "a -----BEGIN or -----END line is cut short"),
            (format!("\n{ONE}-----END "), 5, "a -----BEGIN or -----END line is cut short"),
            (format!("{ONE}-----BEGIN A-----\nAQID"), 4, "what begins there has no -----END line"),
            (format!("-----BEGIN A-----\nAQID\n{ONE}"), 1, "what begins there has no -----END line"),
            (ONE.replace("END A", "END B"), 1, "what begins there has no -----END line"),
            (ONE.replace("-----END A-----", "-----END A"), 1, "what begins there has no -----END line"),
            (ONE.replace("-----BEGIN", "----BEGIN"), 3, "an -----END line has no -----BEGIN line"),
            (format!("{ONE}{}", TWO.replace("BEGIN", "Begin")), 6, "an -----END line has no -----BEGIN line"),
            (format!("{ONE}----- BEGIN B\n{long}\n"), 5, "there is base64 without a -----BEGIN line"),
            (format!("\n{long}\n{ONE}"), 2, "there is base64 without a -----BEGIN line"),
            (format!("{ONE}{}", TWO.replace("BAUG", "*AUG")), 4, "what begins there is not in base64"),
            (format!("{ONE}{}", TWO.replace("BAUG", "# BAUG")), 4, "what begins there is not in base64"),
            (format!("{ONE}{}", TWO.replace("BAUG", "BA-----UG")), 4, "what begins there is not in base64"),
        ] {
            let sentence =
                format!("is not whole PEM text (line {line}: {flaw}): write it again from where it came");
            assert_eq!(found(&text), Err(sentence), "{text:?}");
        }
    }
}
