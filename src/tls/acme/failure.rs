//! Why there is no certificate, and what to do about it, in plain words.

use std::{
    fmt, io,
    path::Path,
    time::{Duration, SystemTime},
};

use http::StatusCode;
use instant_acme::{Error, Problem};
use tokio_rustls::rustls::{self, CertificateError};

use super::{directory::NoAnswer, schedule};
use crate::config::ChallengeKind;

/// What went wrong.
#[derive(Debug)]
pub struct Failure {
    /// One sentence without a full stop: what failed, and what to do.
    pub words: String,
    pub cause: Cause,
    /// The directory wants to hear nothing for this long.
    pub wait: Option<Duration>,
}

/// What can be done about it here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The directory said no to a challenge: another one may do.
    Challenge,
    /// The directory does not know the account's key.
    UnknownAccount,
    /// The directory knows nothing of the object that it was asked for.
    Gone,
    /// The directory was not reached, is broken, or wants us to wait: no answer to what was asked.
    DirectoryClient,
    /// All else.
    Other,
}

/// What a failure is about, for the words.
#[derive(Clone, Copy)]
pub struct About<'a> {
    pub domain: &'a str,
    pub directory: &'a str,
    pub now: SystemTime,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Failure {
    pub fn new(cause: Cause, words: impl Into<String>) -> Self {
        Self { words: words.into(), cause, wait: None }
    }

    /// A file in the data directory could not be read or written.
    pub fn file(path: &Path, error: &io::Error) -> Self {
        let path = path.display();
        Self::new(Cause::Other, format!("{path}: {error}; mend the data directory, its owner or its disk"))
    }
}

impl About<'_> {
    /// A request to the directory failed.
    pub fn request(&self, error: &Error) -> Failure {
        match error {
            Error::Api(problem) => self.problem(problem, None),
            Error::Other(other) => match other.downcast_ref::<NoAnswer>() {
                Some(no_answer) => self.no_answer(no_answer),
                None => self.strange(other),
            },
            other => self.strange(other),
        }
    }

    /// The directory was asked to bind a new account to one elsewhere.
    pub fn binding(&self, error: &Error) -> Failure {
        let failure = self.request(error);
        match error {
            Error::Api(problem) if failure.cause == Cause::Other => self.not_bound(problem),
            Error::Other(other) => match other.downcast_ref::<NoAnswer>() {
                Some(NoAnswer::Refused { problem: Some(problem), .. }) if failure.cause == Cause::Other => {
                    self.not_bound(problem)
                }
                _ => failure,
            },
            _ => failure,
        }
    }

    fn not_bound(&self, problem: &Problem) -> Failure {
        let words = format!(
            "{} did not take the external account binding: check acme.eab_key_id and the key in acme.eab_key_file, or ask for new ones if they were used already ({})",
            self.directory,
            detail(problem)
        );
        Failure::new(Cause::Other, words)
    }

    /// The directory refused `kind` for a reason of its own.
    pub fn challenge(&self, kind: ChallengeKind, problem: &Problem) -> Failure {
        let (domain, port, name) = match kind {
            ChallengeKind::TlsAlpn01 => (self.domain, 443, "tls-alpn-01"),
            ChallengeKind::Http01 => (self.domain, 80, "http-01"),
        };
        let advice = match short(problem) {
            "connection" => format!(
                "port {port} of {domain} was not reached: check that DNS (A and AAAA) points here and that the firewall lets port {port} in"
            ),
            "dns" => format!("DNS has no address for {domain}: add an A or AAAA record that points here"),
            "caa" => format!("a CAA record of {domain} forbids this directory to issue: change it"),
            "rateLimited" => return self.problem(problem, None),
            _ => format!(
                "{domain} did not give our answer at port {port}: check that DNS (A and AAAA) points here, that the firewall lets port {port} in and that no proxy answers before this broker"
            ),
        };
        Failure::new(Cause::Challenge, format!("{name} failed: {advice} ({})", detail(problem)))
    }

    fn problem(&self, problem: &Problem, retry_after: Option<Duration>) -> Failure {
        let Self { domain, directory, now } = self;
        let detail = detail(problem);
        let failure =
            |cause, words: String| Failure { words: format!("{words} ({detail})"), cause, wait: retry_after };
        match short(problem) {
            "rateLimited" => {
                let wait = retry_after.unwrap_or(schedule::RATE_LIMITED);
                let until = humantime::format_rfc3339_seconds(*now + wait.min(Duration::from_secs(1 << 25)));
                let words = format!("{directory} limits how much it issues: rate limited until {until}");
                Failure { wait: Some(wait), ..failure(Cause::DirectoryClient, words) }
            }
            "accountDoesNotExist" => {
                failure(Cause::UnknownAccount, format!("{directory} does not know the account"))
            }
            "externalAccountRequired" => failure(
                Cause::Other,
                format!(
                    "{directory} asks for an external account binding: set acme.eab_key_id and acme.eab_key_file to what it gave you"
                ),
            ),
            "invalidContact" | "unsupportedContact" => {
                failure(Cause::Other, format!("{directory} does not take the contact: change acme.contact"))
            }
            "rejectedIdentifier" | "unsupportedIdentifier" => failure(
                Cause::Other,
                format!(
                    "{directory} does not issue for {domain}: check the name in tls.domains, or take another acme.directory"
                ),
            ),
            "caa" => failure(
                Cause::Other,
                format!("a CAA record of {domain} forbids {directory} to issue: change it"),
            ),
            "userActionRequired" => failure(
                Cause::Other,
                format!("{directory} wants its new terms to be agreed to: follow what it says"),
            ),
            "unauthorized" => failure(
                Cause::Other,
                format!(
                    "{directory} does not allow it: if the account was deactivated, move account.json away to begin a new one"
                ),
            ),
            "badNonce" => {
                failure(Cause::DirectoryClient, format!("{directory} rejected one nonce after the other"))
            }
            "serverInternal" => {
                failure(Cause::DirectoryClient, format!("{directory} failed: nothing to do here but wait"))
            }
            _ => failure(Cause::Other, format!("{directory} refused")),
        }
    }

    fn no_answer(&self, no_answer: &NoAnswer) -> Failure {
        let Self { directory, now, .. } = self;
        let words = match no_answer {
            NoAnswer::TimedOut | NoAnswer::Unreachable(_) => format!(
                "{directory} is not reached: check acme.directory, DNS and the way out to the internet ({no_answer})"
            ),
            NoAnswer::Tls(error) => {
                let advice = match error {
                    rustls::Error::InvalidCertificate(
                        CertificateError::Expired
                        | CertificateError::ExpiredContext { .. }
                        | CertificateError::NotValidYet
                        | CertificateError::NotValidYetContext { .. },
                    ) => format!(
                        "its certificate is not valid at {}, the time by this host's clock: set the clock right",
                        humantime::format_rfc3339_seconds(*now)
                    ),
                    rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                        "nobody we trust vouches for it: set acme.root to a private directory's root certificate, or install the system's (ca-certificates)".into()
                    }
                    rustls::Error::InvalidCertificate(
                        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                    ) => "its certificate is for another name: acme.directory must have the one that is in it".into(),
                    rustls::Error::InvalidCertificate(_) => {
                        "its certificate is not one that a server may have: it needs one that is no authority's own, issued by the authority in acme.root".into()
                    }
                    _ => "TLS with it failed: check acme.directory and what lies between".into(),
                };
                format!("{directory} is not to be trusted: {advice} ({})", shortened(&error.to_string()))
            }
            NoAnswer::Refused { status, problem, retry_after } => {
                if let Some(problem) = problem {
                    let cause_by_status = match *status {
                        StatusCode::NOT_FOUND | StatusCode::GONE => Some(Cause::Gone),
                        status if status.is_server_error() => Some(Cause::DirectoryClient),
                        _ => None,
                    };
                    let mut failure = self.problem(problem, *retry_after);
                    if failure.cause == Cause::Other {
                        failure.cause = cause_by_status.unwrap_or(Cause::Other);
                    }
                    return failure;
                }
                let cause =
                    if *status == StatusCode::NOT_FOUND { Cause::Gone } else { Cause::DirectoryClient };
                let words = format!("{directory} does not work: is acme.directory right? ({no_answer})");
                return Failure { words, cause, wait: *retry_after };
            }
        };
        Failure::new(Cause::DirectoryClient, words)
    }

    fn strange(&self, error: &dyn fmt::Display) -> Failure {
        let error = shortened(&error.to_string());
        let directory = self.directory;
        let words = format!(
            "{directory} answered what this broker does not understand: is acme.directory right? ({error})"
        );
        Failure::new(Cause::Other, words)
    }
}

/// The last part of a problem's type.
fn short(problem: &Problem) -> &str {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind)
}

/// What the directory itself said.
fn detail(problem: &Problem) -> String {
    let kind = short(problem);
    match problem.detail.as_deref() {
        Some(detail) => shortened(&format!("{kind}: {detail}")),
        None => shortened(kind),
    }
}

/// A stranger's text, fit for one line of a log.
fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About<'_> = About {
        domain: "pods.example.org",
        directory: "https://ca.example/dir",
        now: SystemTime::UNIX_EPOCH,
    };

    fn problem(kind: &str) -> Problem {
        let json = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"because\nof it"}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn each_problem_says_what_to_do() {
        for (kind, cause, words) in [
            ("externalAccountRequired", Cause::Other, "acme.eab_key_id"),
            ("invalidContact", Cause::Other, "acme.contact"),
            ("rejectedIdentifier", Cause::Other, "tls.domains"),
            ("accountDoesNotExist", Cause::UnknownAccount, "does not know the account"),
            ("badNonce", Cause::DirectoryClient, "nonce"),
            ("serverInternal", Cause::DirectoryClient, "nothing to do here but wait"),
            ("caa", Cause::Other, "CAA record"),
            ("somethingNew", Cause::Other, "somethingNew: because of it"),
        ] {
            let failure = ABOUT.request(&Error::Api(problem(kind)));
            assert!(failure.words.contains(words), "{kind}: {failure}");
            assert_eq!(failure.cause, cause, "{kind}");
        }
    }

    #[test]
    fn each_challenge_says_which_port() {
        for (kind, words) in [
            ("connection", "port 80 of pods.example.org was not reached"),
            ("dns", "DNS has no address"),
            ("unauthorized", "DNS (A and AAAA) points here"),
            ("caa", "CAA record"),
        ] {
            let failure = ABOUT.challenge(ChallengeKind::Http01, &problem(kind));
            assert!(failure.words.contains(words), "{kind}: {failure}");
            assert_eq!(failure.cause, Cause::Challenge);
        }
        let failure = ABOUT.challenge(ChallengeKind::TlsAlpn01, &problem("tls"));
        assert!(failure.words.contains("port 443"), "{failure}");
    }

    #[test]
    fn rate_limits_say_until_when() {
        let refused = |retry_after| NoAnswer::Refused {
            status: StatusCode::TOO_MANY_REQUESTS,
            problem: Some(problem("rateLimited")),
            retry_after,
        };
        let failure = ABOUT.no_answer(&refused(Some(Duration::from_secs(7200))));
        assert!(failure.words.contains("rate limited until 1970-01-01T02:00:00Z"), "{failure}");
        assert_eq!(failure.wait, Some(Duration::from_secs(7200)));
        assert_eq!(ABOUT.no_answer(&refused(None)).wait, Some(schedule::RATE_LIMITED));
        let huge = ABOUT.no_answer(&refused(Some(Duration::MAX)));
        assert_eq!(huge.cause, Cause::DirectoryClient);
    }

    #[test]
    fn a_wrong_clock_and_a_missing_root_are_told_apart() {
        let words = |error| ABOUT.no_answer(&NoAnswer::Tls(rustls::Error::InvalidCertificate(error))).words;
        assert!(words(CertificateError::Expired).contains("1970-01-01T00:00:00Z"));
        assert!(words(CertificateError::Expired).contains("set the clock right"));
        assert!(words(CertificateError::UnknownIssuer).contains("acme.root"));
        assert!(words(CertificateError::NotValidForName).contains("for another name"));
        assert!(words(CertificateError::BadEncoding).contains("not one that a server may have"));
    }

    #[test]
    fn a_long_detail_is_cut() {
        assert_eq!(shortened(&"x\n".repeat(1000)).chars().count(), 300);
    }
}
