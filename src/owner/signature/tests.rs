use std::time::Duration;

use proptest::prelude::*;
use salvo::http::{HeaderMap, Method};

use super::*;

const ORIGIN: &str = "https://pods.example.org";
const BODY: &[u8] = b"<!doctype html>";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn secret() -> OwnerSecret {
    OwnerSecret::from_bytes(&[7; 32])
}

/// A request that can be bent after it was signed.
#[derive(Clone)]
struct Signed {
    method: Method,
    origin: String,
    path: String,
    headers: HeaderMap,
    has_body: bool,
}

impl Signed {
    /// A `PUT` or a `DELETE`, signed as the broker's own command signs.
    fn new(method: Method, path: &str) -> Self {
        let has_body = method == Method::PUT;
        let mut request =
            Self { method, origin: ORIGIN.into(), path: path.into(), headers: HeaderMap::new(), has_body };
        let fields = sign(&secret(), &request.parts(), has_body.then_some(BODY), "n", now());
        request.headers.extend(fields);
        request
    }

    /// A `DELETE` with another `Signature-Input`, and the signature that fits it.
    fn input(covered: &str, params: &str) -> Self {
        let mut request = Self::new(Method::DELETE, "/aaaaaaaaaaaa");
        request.headers.insert("date", HeaderValue::from_static("Tue, 20 Apr 2021 02:07:55 GMT"));
        let input = format!("{covered}{params}");
        request.headers.insert(SIGNATURE_INPUT, HeaderValue::try_from(format!("sig1={input}")).unwrap());
        let dictionary: Dictionary = Parser::new(&format!("x={input}")).parse().unwrap();
        let Some(ListEntry::InnerList(covered)) = dictionary.into_values().next() else { panic!("no list") };
        let base = signature_base(&covered, &request.parts()).unwrap_or_default();
        let signature = BASE64_STANDARD.encode(secret().sign(base.as_bytes()));
        request.headers.insert(SIGNATURE, HeaderValue::try_from(format!("sig1=:{signature}:")).unwrap());
        request
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            method: &self.method,
            origin: &self.origin,
            path_and_query: &self.path,
            headers: &self.headers,
        }
    }

    fn check(&self) -> Result<VerifiedRequest, SignatureError> {
        verify(&self.parts(), self.has_body, now())
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    fn and(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }
}

fn good_params() -> String {
    let (created, key) = (seconds(now()), secret().owner_key());
    format!(r#";created={created};nonce="n";keyid="{key}";alg="ed25519""#)
}

/// The example of RFC 9421, appendix B.2.6, with the key of B.1.4.
#[test]
fn the_example_of_the_rfc_is_built_and_signed_to_the_letter() {
    let mut headers = HeaderMap::new();
    headers.insert("date", HeaderValue::from_static("Tue, 20 Apr 2021 02:07:55 GMT"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("content-length", HeaderValue::from_static("18"));
    let parts = Parts {
        method: &Method::POST,
        origin: "https://example.com",
        path_and_query: "/foo?param=Value&Pet=dog",
        headers: &headers,
    };
    let input = r#"sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519""#;
    let dictionary: Dictionary = Parser::new(input).parse().unwrap();
    let Some(ListEntry::InnerList(covered)) = dictionary.into_values().next() else { panic!("no list") };
    let base = signature_base(&covered, &parts).unwrap();
    let expected = "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\
        \"@method\": POST\n\
        \"@path\": /foo\n\
        \"@authority\": example.com\n\
        \"content-type\": application/json\n\
        \"content-length\": 18\n\
        \"@signature-params\": (\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\");created=1618884473;keyid=\"test-key-ed25519\"";
    assert_eq!(base, expected);
    let pkcs8 = "MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF";
    let pkcs8 = BASE64_STANDARD.decode(pkcs8).unwrap();
    let secret = OwnerSecret::from_bytes(pkcs8[16..].try_into().unwrap());
    let signature =
        "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==";
    assert_eq!(BASE64_STANDARD.encode(secret.sign(base.as_bytes())), signature);
    let key = "JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=";
    assert_eq!(BASE64_STANDARD.encode(secret.owner_key().0), key);
}

#[test]
fn a_signed_request_proves_its_key() {
    let verified = Signed::new(Method::PUT, "/aaaaaaaaaaaa").check().unwrap();
    let created = seconds(now());
    let expected =
        VerifiedRequest { key: secret().owner_key(), created, expires: created + WINDOW, nonce: "n".into() };
    assert_eq!(verified, expected);
    assert!(Signed::new(Method::DELETE, "/aaaaaaaaaaaa?x=1").check().is_ok());
    for covered in [
        r#"("@method" "@target-uri")"#,
        r#"("@authority" "@method" "@path")"#,
        r#"("@method" "@target-uri" "date" "@scheme" "@request-target" "@query")"#,
    ] {
        assert!(Signed::input(covered, &good_params()).check().is_ok(), "{covered}");
    }
    let short = format!("{};expires={}", good_params(), created + 7);
    assert_eq!(Signed::input(r#"("@method" "@target-uri")"#, &short).check().unwrap().expires, created + 7);
}

#[test]
fn a_signature_over_too_little_is_refused() {
    let uri = "@target-uri (or @authority and @path)";
    for (covered, missing) in [
        ("()", "@method"),
        (r#"("@target-uri")"#, "@method"),
        (r#"("@method")"#, uri),
        (r#"("@method" "@path")"#, uri),
        (r#"("@method" "@authority" "@query")"#, uri),
        (r#"("@method" "@request-target" "@scheme")"#, uri),
    ] {
        let refused = Signed::input(covered, &good_params()).check();
        assert_eq!(refused, Err(SignatureError::NotCovered(missing)), "{covered}");
    }
    let put = Signed { has_body: true, ..Signed::new(Method::DELETE, "/aaaaaaaaaaaa") };
    assert_eq!(put.check(), Err(SignatureError::NotCovered("content-digest")));
    let mut query = Signed::input(r#"("@authority" "@method" "@path")"#, &good_params());
    query.path += "?all";
    assert_eq!(query.check(), Err(SignatureError::NotCovered("@query")));
}

#[test]
fn each_wrong_signature_has_its_sentence() {
    let good = || Signed::new(Method::DELETE, "/aaaaaaaaaaaa");
    let covered = r#"("@method" "@target-uri")"#;
    let params = |params: &str| Signed::input(covered, params).check().unwrap_err();
    let without = |name: &str| {
        let all = good_params();
        let kept: Vec<_> = all.split(';').filter(|part| !part.starts_with(name)).collect();
        params(&kept.join(";"))
    };
    let is = |name: &'static str, error: SignatureError| {
        assert!(matches!(error, SignatureError::Parameter(found, _) if found == name), "{error}");
    };
    for name in ["created", "keyid", "nonce"] {
        is(name, without(name));
    }
    let replaced = |from: &str, to: &str| params(&good_params().replace(from, to));
    is("alg", replaced("ed25519", "hmac-sha256"));
    is("alg", replaced("\"ed25519\"", "ed25519"));
    is("keyid", replaced(&secret().owner_key().to_string(), "owner"));
    is("nonce", replaced("\"n\"", "\"\""));
    is("nonce", replaced("\"n\"", &format!("{:?}", "n".repeat(65))));
    is("created", replaced("created=", "created=-"));
    is("expires", params(&format!("{};expires=\"soon\"", good_params())));
    let time = seconds(now());
    let over = params(&format!("{};expires={time}", good_params()));
    assert_eq!(over, SignatureError::Expired(Utc(time)));
    assert_eq!(replaced(&time.to_string(), &(time - 300).to_string()), SignatureError::Expired(Utc(time)));
    let unknown = |name: &str| {
        let covered = format!(r#"("@method" "@target-uri" {name})"#);
        Signed::input(&covered, &good_params()).check().unwrap_err()
    };
    for name in ["@status", "@query-param", "Date", "@", "", "a b", "@signature-params"] {
        assert_eq!(unknown(&format!("{name:?}")), SignatureError::UnknownComponent(name.into()));
    }
    assert_eq!(unknown("\"date\";sf"), SignatureError::UnknownComponent("date".into()));
    assert_eq!(unknown("\"@method\";req"), SignatureError::UnknownComponent("@method".into()));
    assert_eq!(unknown("\"@method\""), SignatureError::Twice("@method".into()));
    assert_eq!(unknown("\"x-missing\""), SignatureError::NoSuchField("x-missing".into()));
    assert_eq!(unknown("date"), SignatureError::Malformed);
    let many: String = (0..40).map(|n| format!("\"x-{n}\" ")).collect();
    assert_eq!(unknown(many.trim_end()), SignatureError::TooMany);
    let mut bare = good();
    bare.headers.remove(SIGNATURE_INPUT);
    assert_eq!(bare.check(), Err(SignatureError::Missing));
    bare.headers.clear();
    assert_eq!(bare.check(), Err(SignatureError::Missing));
    assert_eq!(good().with("signature", "sig1=:AAAA").check(), Err(SignatureError::Malformed));
    assert_eq!(good().with("signature", "sig1=?1").check(), Err(SignatureError::Malformed));
    assert_eq!(good().with("signature-input", "sig1=1").check(), Err(SignatureError::Malformed));
    assert_eq!(good().with("signature", "sig1=:AAAA:").check(), Err(SignatureError::BadSignature));
    assert_eq!(good().with("signature", "sig2=:AAAA:").check(), Err(SignatureError::NotOne));
    assert_eq!(good().with("signature", &"a".repeat(5000)).check(), Err(SignatureError::TooLong));
    assert_eq!(good().and("signature", "sig2=:AAAA:").check(), Err(SignatureError::NotOne));
    assert_eq!(good().and("signature-input", "sig2=()").check(), Err(SignatureError::NotOne));
}

/// What was signed is what is done: nothing of the signed parts can be bent afterwards, nor doubled.
#[test]
fn a_request_that_was_bent_after_signing_is_refused() {
    let good = || Signed::new(Method::PUT, "/aaaaaaaaaaaa");
    let bent = [
        Signed { method: Method::DELETE, ..good() },
        Signed { path: "/bbbbbbbbbbbb".into(), ..good() },
        Signed { path: "/aaaaaaaaaaaa?".into(), ..good() },
        Signed { path: "/aaaaaaaaaaa%61".into(), ..good() },
        Signed { path: "//aaaaaaaaaaaa".into(), ..good() },
        Signed { path: "/x/../aaaaaaaaaaaa".into(), ..good() },
        Signed { origin: "https://other.example.org".into(), ..good() },
        Signed { origin: "http://pods.example.org".into(), ..good() },
        good().with("content-digest", &content_digest(b"other")),
        good().and("content-digest", &content_digest(b"other")),
    ];
    for request in bent {
        assert_eq!(request.check(), Err(SignatureError::BadSignature), "{} {}", request.method, request.path);
    }
    let covered = r#"("@method" "@target-uri" "date")"#;
    let dated = Signed::input(covered, &good_params());
    assert!(dated.check().is_ok());
    assert_eq!(dated.and("date", "Wed, 21 Apr 2021 02:07:55 GMT").check(), Err(SignatureError::BadSignature));
}

proptest! {
    /// For every age, a signature is good for five minutes and no longer.
    #[test]
    fn a_signature_is_good_in_its_window_only(age in 0_u64..1000) {
        let request = Signed::new(Method::PUT, "/aaaaaaaaaaaa");
        let good = verify(&request.parts(), true, now() + Duration::from_secs(age)).is_ok();
        prop_assert_eq!(good, age < WINDOW);
    }

    /// For every other key, path or nonce of the same length the signature does not fit.
    #[test]
    fn a_changed_input_is_refused(at in 0_usize..1000, to in "[ -~]") {
        let good = Signed::new(Method::PUT, "/aaaaaaaaaaaa");
        let input = good.headers[SIGNATURE_INPUT].to_str().unwrap().to_owned();
        let mut changed = input.clone();
        let at = at % input.len();
        changed.replace_range(at..=at, &to);
        let parsed = |text: &str| Parser::new(text).parse::<Dictionary>().ok();
        if parsed(&input) != parsed(&changed) {
            prop_assert!(good.with("signature-input", &changed).check().is_err());
        }
    }

    #[test]
    fn no_fields_make_it_panic(input in "[ -~]{0,80}", signature in "[ -~]{0,80}") {
        let request = Signed::new(Method::PUT, "/aaaaaaaaaaaa");
        prop_assert!(request.with("signature-input", &input).with("signature", &signature).check().is_err());
    }
}
