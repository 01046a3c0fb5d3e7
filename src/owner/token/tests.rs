use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const BROKER: &str = "https://pods.example.org";
const POD: &str = "a pod";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn secret() -> OwnerSecret {
    OwnerSecret::from_bytes(&[7; 32])
}

fn request() -> TokenRequest<'static> {
    TokenRequest { pod_id: POD, audience: BROKER, lifetime: Duration::from_mins(10), once: None }
}

fn check(token: &str) -> Result<VerifiedToken, TokenError> {
    verify(token, POD, &[BROKER.into()], now())
}

/// A token of any header and claims, with a signature that fits.
fn signed(head: &Value, claims: &Value) -> String {
    let part = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(head), part(claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(secret().sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn head() -> Value {
    json!({"alg": "EdDSA", "kid": secret().owner_key()})
}

fn claims() -> Value {
    let now = seconds(now());
    json!({"sub": POD, "aud": BROKER, "iat": now, "exp": now + 600})
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name);
    object
}

#[test]
fn a_token_proves_its_key() {
    let token = issue(&secret(), &request(), now()).unwrap();
    let verified = check(&token).unwrap();
    assert_eq!(verified.key, secret().owner_key());
    assert_eq!(verified.issued, now());
    assert_eq!(verified.expires, now() + Duration::from_mins(10));
    assert_eq!(verified.once, None);
    let once = TokenRequest { once: Some("x".into()), audience: "https://pods.example.org/", ..request() };
    assert_eq!(check(&issue(&secret(), &once, now()).unwrap()).unwrap().once.as_deref(), Some("x"));
    assert!(check(&signed(&head(), &claims())).is_ok());
    assert!(check(&signed(&head(), &with(claims(), "aud", json!(["https://pods.example.org/"])))).is_ok());
    assert!(
        check(&signed(&head(), &with(claims(), "aud", json!([BROKER, "https://other.example"])))).is_ok()
    );
}

#[test]
fn each_wrong_token_has_its_sentence() {
    let bent = |head: Value, claims: Value| check(&signed(&head, &claims)).unwrap_err();
    let claim = |name, value| bent(head(), with(claims(), name, value));
    let time = seconds(now());
    let good = signed(&head(), &claims());
    let resigned = format!("{}.{}", good.rsplit_once('.').unwrap().0, BASE64_URL_SAFE_NO_PAD.encode([0; 64]));
    let unsigned = |alg: &str| bent(with(head(), "alg", json!(alg)), claims());
    for (error, expected) in [
        (check(&"a".repeat(5000)).unwrap_err(), TokenError::TooLong),
        (check("").unwrap_err(), TokenError::Malformed),
        (check("a.b").unwrap_err(), TokenError::Malformed),
        (check("....").unwrap_err(), TokenError::Malformed),
        (check(&format!("{good}.")).unwrap_err(), TokenError::Malformed),
        (check(&good.replacen("ey", "=y", 1)).unwrap_err(), TokenError::Malformed),
        (unsigned("none"), TokenError::NotSigned),
        (unsigned("NoNe"), TokenError::NotSigned),
        (unsigned("HS256"), TokenError::WrongAlgorithm),
        (unsigned("RS256"), TokenError::WrongAlgorithm),
        (unsigned("eddsa"), TokenError::WrongAlgorithm),
        (bent(without(head(), "alg"), claims()), TokenError::WrongAlgorithm),
        (bent(without(head(), "kid"), claims()), TokenError::NoKey),
        (bent(with(head(), "kid", json!("owner")), claims()), TokenError::NoKey),
        // The point of order one, for which a signature of zeros fits any message.
        (bent(with(head(), "kid", json!(format!("01{}", "00".repeat(31)))), claims()), TokenError::NoKey),
        (
            bent(with(head(), "kid", json!(OwnerSecret::from_bytes(&[8; 32]).owner_key())), claims()),
            TokenError::BadSignature,
        ),
        (check(&resigned).unwrap_err(), TokenError::BadSignature),
        (claim("aud", json!("https://other.example.org")), TokenError::OtherBroker(BROKER.into())),
        (claim("aud", json!(["https://other.example.org"])), TokenError::OtherBroker(BROKER.into())),
        (claim("aud", json!("http://pods.example.org")), TokenError::OtherBroker(BROKER.into())),
        (claim("aud", json!(7)), TokenError::Claims),
        (claim("sub", json!("another pod")), TokenError::OtherPod),
        (claim("sub", json!(null)), TokenError::Claims),
        (claim("exp", json!("tomorrow")), TokenError::Claims),
        (claim("exp", json!(-1)), TokenError::Claims),
        (claim("iat", json!(1.5)), TokenError::Claims),
        (claim("exp", json!(time - 3600)), TokenError::Expired(Utc(time))),
        (claim("iat", json!(time + 3600)), TokenError::NotYet(Utc(time))),
        (claim("nbf", json!(time + 3600)), TokenError::NotYet(Utc(time))),
        (claim("exp", json!(time + 3601)), TokenError::TooLongLived),
        (claim("exp", json!(u64::MAX)), TokenError::TooLongLived),
        (claim("jti", json!("x".repeat(65))), TokenError::TooLong),
    ] {
        assert_eq!(error, expected);
    }
    for name in ["sub", "aud", "iat", "exp"] {
        assert_eq!(bent(head(), without(claims(), name)), TokenError::Claims, "{name}");
    }
    let nobody: [String; 0] = [];
    assert!(matches!(verify(&good, POD, &nobody, now()), Err(TokenError::OtherBroker(_))));
    let long = TokenRequest { lifetime: MAX_LIFETIME + Duration::from_secs(1), ..request() };
    assert_eq!(issue(&secret(), &long, now()), Err(TokenError::TooLongLived));
}

/// A claim that stands twice is the one thing for the signer and another for the reader: it is refused.
#[test]
fn a_claim_that_stands_twice_is_refused() {
    let part = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
    let claims = claims().to_string().replacen('{', r#"{"sub":"another pod","#, 1);
    let message = format!("{}.{}", part(&head().to_string()), part(&claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(secret().sign(message.as_bytes()));
    assert_eq!(check(&format!("{message}.{signature}")), Err(TokenError::Claims));
}

proptest! {
    /// For every shift of the signer's clock, a token is good within its life and the leeway, and at no other time.
    #[test]
    fn a_token_is_good_in_its_time_only(shift in -8000_i64..8000, lifetime in 1_u64..=3600) {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs((1_800_000_000 + shift) as u64);
        let token = issue(&secret(), &TokenRequest { lifetime: Duration::from_secs(lifetime), ..request() }, made);
        let leeway = LEEWAY.as_secs() as i64;
        let good = shift <= leeway && shift + lifetime as i64 + leeway > 0;
        prop_assert_eq!(check(&token.unwrap()).is_ok(), good);
    }

    #[test]
    fn a_token_with_any_byte_changed_is_refused(at in 0_usize..1000, to in "[A-Za-z0-9_.=-]") {
        let token = issue(&secret(), &request(), now()).unwrap();
        let at = at % token.len();
        let mut changed = token.clone();
        changed.replace_range(at..=at, &to);
        prop_assert_eq!(check(&changed).is_ok(), changed == token);
    }

    #[test]
    fn no_text_makes_it_panic(token in "\\PC{0,80}|[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,90}") {
        prop_assert!(check(&token).is_err());
    }
}
