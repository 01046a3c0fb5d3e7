//! `Strict-Transport-Security` on public names and nowhere else.

use rcgen::{CertificateParams, CustomExtension, DnType};

use crate::support::{
    certs::{Authority, Files},
    server::TestServer,
    tls_client::{Client, get},
};

/// A receipt of a Certificate Transparency log, which only public authorities have: a list with nothing in it.
fn logged(params: &mut CertificateParams) {
    let list = vec![4, 2, 0, 0];
    let receipts = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 11129, 2, 4, 2], list);
    params.custom_extensions.push(receipts);
}

async fn header(server: &TestServer, authority: &Authority, name: &str, path: &str) -> Option<String> {
    let client = Client::trusting(&authority.pem());
    let mut stream = client.connect(&server.address, name).await.unwrap();
    let answer = get(&mut stream, name, path).await.to_ascii_lowercase();
    let mut lines = answer.lines().take_while(|line| !line.is_empty());
    lines.find_map(|line| Some(line.strip_prefix("strict-transport-security: ")?.to_owned()))
}

#[tokio::test]
async fn public_names_have_it_and_private_ones_have_not() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    files.write("private", &authority.issue(&["private.example", "127.0.0.1"]));
    files.write("public", &authority.issue_with(&["public.example", "*.public.example"], logged));
    let names = ["private", "public"];
    let server = TestServer::with(&files.toml(&names)).await;
    for (name, expected) in [
        ("public.example", Some("max-age=31536000")),
        ("any.public.example", Some("max-age=31536000")),
        ("private.example", None),
        ("127.0.0.1", None),
    ] {
        // Errors have it as well.
        for path in ["/health", "/no/such/path"] {
            assert_eq!(header(&server, &authority, name, path).await.as_deref(), expected, "{name}{path}");
        }
    }
    let silent = files.toml(&names).replace("mode = ", "hsts = false\nmode = ");
    let silent = TestServer::with(&silent).await;
    assert_eq!(header(&silent, &authority, "public.example", "/health").await, None);
}

#[tokio::test]
async fn staging_certificates_do_not_have_it() {
    let (authority, files) = (Authority::named("(STAGING) Let's Encrypt"), Files::new());
    let pair = authority.issue_with(&["staging.example"], |params| {
        logged(params);
        params.distinguished_name.push(DnType::CommonName, "staging.example");
    });
    files.write("pair", &pair);
    let server = TestServer::with(&files.toml(&["pair"])).await;
    assert_eq!(header(&server, &authority, "staging.example", "/health").await, None);
}

#[tokio::test]
async fn plain_http_does_not_have_it() {
    let server = TestServer::start().await;
    let answer =
        server.http.get(server.url("/health")).header("host", "public.example").send().await.unwrap();
    assert!(!answer.headers().contains_key("strict-transport-security"));
}
