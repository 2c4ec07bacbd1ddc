//! Connection URLs: what they mean, and what they say that is wrong.

use proptest::prelude::*;
use tokio_postgres::config::Host;

use super::*;
use crate::config::written::Place;

fn text(value: &str) -> Text {
    Text { value: value.to_owned(), foreign: Vec::new(), place: Place { setting: String::new(), at: 0 } }
}

/// A URL in which `filled_in` stands for every `${}`.
fn with_secret(url: &str, filled_in: &str) -> Text {
    let mut text = text("");
    for (index, own) in url.split("${}").enumerate() {
        if index > 0 {
            let start = text.value.len();
            text.value.push_str(filled_in);
            text.foreign.push(start..text.value.len());
        }
        text.value.push_str(own);
    }
    text
}

fn read(url: &str) -> (tokio_postgres::Config, TlsMode) {
    parse(&text(url), "shop", Path::new("etc")).map_err(|bad| bad.problem).unwrap()
}

fn problem(url: &str) -> String {
    parse(&text(url), "shop", Path::new("etc")).err().unwrap().problem
}

fn tls(mode: &str) -> TlsMode {
    read(&format!("postgres://u@h/d?{mode}")).1
}

#[test]
fn both_forms_of_libpq_are_read() {
    for url in [
        "postgres://us%65r:p%40ss@h:5433/d?connect_timeout=3",
        "postgresql://h:5433/d?user=user&password=p%40ss&connect_timeout=3",
        "host=h port=5433 user = user password='p@ss' dbname=d connect_timeout=3",
    ] {
        let (config, _) = read(url);
        assert_eq!(config.get_hosts(), [Host::Tcp("h".to_owned())], "{url}");
        assert_eq!(config.get_ports(), [5433], "{url}");
        assert_eq!(config.get_user(), Some("user"), "{url}");
        assert_eq!(config.get_password(), Some(&b"p@ss"[..]), "{url}");
        assert_eq!(config.get_dbname(), Some("d"), "{url}");
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)), "{url}");
        assert_eq!(config.get_application_name(), Some("tablecast-shop"), "{url}");
    }
}

#[test]
fn unix_sockets_are_read() {
    for url in [
        "postgres://u@%2Frun%2Fpostgresql/d",
        "postgres:///d?host=/run/postgresql&user=u",
        "host=/run/postgresql user=u dbname=d",
    ] {
        assert_eq!(read(url).0.get_hosts(), [Host::Unix("/run/postgresql".into())], "{url}");
    }
}

#[test]
fn sslmode_has_what_tokio_postgres_lacks() {
    assert_eq!(tls(""), TlsMode::Prefer);
    assert_eq!(tls("sslmode=disable"), TlsMode::Disable);
    assert_eq!(tls("sslmode=require"), TlsMode::Require);
    assert_eq!(tls("sslmode=verify-full"), TlsMode::VerifyFull { root_cert: None });
    assert_eq!(tls("sslrootcert=system&sslmode=verify-full"), TlsMode::VerifyFull { root_cert: None });
    let root_cert = |path: &str| TlsMode::VerifyFull { root_cert: Some(path.into()) };
    assert_eq!(tls("sslmode=verify-full&sslrootcert=ca.pem"), root_cert("etc/ca.pem"));
    assert_eq!(read("host=h user=u dbname=d sslmode=verify-full sslrootcert='/a b/ca'").1, root_cert("/a b/ca"));
    assert_eq!(read("postgres://u@h/d?sslmode=verify-full").0.get_ssl_mode(), SslMode::Require);
}

#[test]
fn what_is_missing_or_wrong_is_said_without_the_url() {
    assert_eq!(problem("postgres://u@h"), "names no database");
    assert_eq!(problem("postgres://h/d"), "names no user");
    assert_eq!(problem("user=u dbname=d"), "names no host");
    assert_eq!(problem(""), "names no host");
    assert_eq!(problem("s3cr3t"), "is not a connection URL");
    assert_eq!(problem("mysql://u:s3cr3t@h/d?a=b"), "has an option that is not known");
    assert_eq!(problem("postgres://u:s3cr3t@h:port/d"), "is not a connection URL");
    assert_eq!(problem("postgres://u@h/d?s3cr3t"), "has an option without a value");
    assert_eq!(problem("postgres://u@h/d?s3cr3t=1"), "has an option that is not known");
    assert_eq!(problem("postgres://u@h/d?port=s3cr3t"), "its option `port` has a value that is not valid");
    assert_eq!(problem("postgres://u@h/d?sslkey=k"), "its option `sslkey` is libpq's, and tablecast cannot heed it");
    assert_eq!(problem("postgres://u@h/d?sslmode=s3cr3t"), "its `sslmode` is not known");
    assert_eq!(problem("postgres://u@h/d?sslmode=verify-ca"), "`sslmode=verify-ca` would trust any host's certificate");
    assert_eq!(problem("postgres://u@h/d?sslrootcert=ca"), "its `sslrootcert` would not be looked at");
    assert_eq!(problem("host=a,b port=1,2,3 user=u dbname=d"), "has not as many ports as hosts");
    assert_eq!(problem("host=h password='s3cr3t"), "has a quote that nothing closes");
}

#[test]
fn a_url_that_is_filled_in_as_a_whole_is_read_as_it_is() {
    let url =
        parse(&with_secret("${}", "postgres://u:p%40@h/d?application_name=a"), "shop", Path::new("")).ok().unwrap();
    assert_eq!(url.0.get_password(), Some(&b"p@"[..]));
    let url = parse(&with_secret("${}", "host=h user=u password=p dbname=d"), "shop", Path::new("")).ok().unwrap();
    assert_eq!(url.0.get_password(), Some(&b"p"[..]));
}

proptest! {
    #[test]
    fn a_password_from_the_environment_may_hold_any_character(password in "[^%\0]{1,20}") {
        let options = "host=h user=u dbname=d password=";
        for url in ["postgres://u:${}@h/d".to_owned(), format!("{options}${{}}"), format!("{options}'${{}}' port=1")] {
            let config = parse(&with_secret(&url, &password), "shop", Path::new("")).map_err(|bad| bad.problem);
            let config = config.unwrap().0;
            prop_assert_eq!(config.get_password(), Some(password.as_bytes()), "{}", url);
        }
    }

    #[test]
    fn no_text_panics(url in "(postgres://)?\\PC{0,40}") {
        let _ = parse(&text(&url), "shop", Path::new(""));
    }
}
