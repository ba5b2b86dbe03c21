//! What people name: registration ids, ID scopes, API versions, endpoints, proxies and the hosts to reach without one.

use std::{
    fmt::{Debug, Display},
    str::FromStr,
    sync::LazyLock,
};

use dps_connect::{ApiVersion, Endpoint, NoProxy, Proxy};
use dps_state_machine::{Error, ErrorKind, IdScope, RegistrationId};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::input::{Secret, parts, text};

const PASSWORD: &str = "kQzVxJwPyGhLmTrB";

static SECRET: LazyLock<Secret> = LazyLock::new(|| Secret::new(PASSWORD.as_bytes(), 8));

/// Parts: a text that is read as each of them; a list of hosts to reach directly.
pub fn run(data: &[u8]) {
    let mut parts = parts(data);
    let name = text(parts.next().unwrap_or_default());
    let list = text(parts.next().unwrap_or_default());

    if let Some(id) = round_trip::<RegistrationId>("registration id", &name) {
        assert_eq!(id.as_str(), name, "never rewritten");
        assert!(id.as_str().len() <= RegistrationId::MAX_LEN);
    }
    if let Some(scope) = round_trip::<IdScope>("ID scope", &name) {
        assert_eq!(scope.as_str(), name, "never rewritten");
        assert!(scope.as_str().len() <= IdScope::MAX_LEN);
    }
    round_trip::<ApiVersion>("API version", &name);
    let endpoint = round_trip::<Endpoint>("endpoint", &name);
    if let Some(endpoint) = &endpoint {
        assert!(!endpoint.host().is_empty() && endpoint.port() != Some(0));
    }
    proxy(&name);
    no_proxy(&list, endpoint.as_ref().map_or("dps.example", Endpoint::host));
}

/// What is read prints as what is read again to the same; what is not is a configuration error that names the field.
fn round_trip<T>(field: &str, name: &str) -> Option<T>
where
    T: FromStr<Err = Error> + Display + Debug + PartialEq,
{
    match name.parse::<T>() {
        Ok(value) => {
            let shown = value.to_string();
            assert_eq!(shown.parse::<T>().ok().as_ref(), Some(&value), "{shown:?}");
            Some(value)
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().starts_with(field), "{error}");
            None
        }
    }
}

fn proxy(name: &str) {
    match name.parse::<Proxy>() {
        Ok(proxy) => {
            assert!(!proxy.host().is_empty() && proxy.port() > 0);
            // As shown, with its password in the stars' place.
            let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let user = proxy.credentials().map_or(String::new(), |(user, password)| {
                format!("{}:{}@", encode(user), encode(password))
            });
            let written = format!("http://{user}{}", proxy.address());
            assert_eq!(written.parse::<Proxy>().ok(), Some(proxy), "{written:?}");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Configuration),
    }
    // The engine learns our password, and writes it to where nobody hides it.
    if SECRET.is_in(name.as_bytes()) {
        return;
    }
    // With a password of ours in it, whatever is around: it is in no text that people see.
    for secret in [format!("http://u:{PASSWORD}@{name}"), format!("{name}:{PASSWORD}@h")] {
        let shown = match secret.parse::<Proxy>() {
            Ok(proxy) => format!("{proxy} {proxy:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        SECRET.assert_not_in(&shown);
    }
}

fn no_proxy(list: &str, host: &str) {
    let Ok(parsed) = list.parse::<NoProxy>();
    let direct = parsed.matches(host, 443);
    let more: NoProxy = format!("{list},other.invalid").parse().unwrap_or_default();
    assert!(!direct || more.matches(host, 443), "one more entry takes nothing away");
    let all: NoProxy = format!("{list},*").parse().unwrap_or_default();
    assert!(all.matches(host, 443), "* is every host");
    assert!(!NoProxy::default().matches(host, 443), "nothing is no host");
    let each = list.split(',').any(|entry| {
        let Ok(entry) = entry.parse::<NoProxy>();
        entry.matches(host, 443)
    });
    assert_eq!(direct, each, "a list is its entries");
}
