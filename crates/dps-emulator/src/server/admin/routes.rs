//! Each route once: a method, a path, and what it does. `openapi.json` has the same.

use http::{Method, StatusCode, header, request};

use super::{
    Admin, Call,
    answer::{Answer, Problem},
    clock, connections, devices, enrollments, events, page, query, status,
};

/// See the module.
pub(super) struct Route {
    pub(super) method: Method,
    /// With a name in braces where any text may stand.
    pub(super) path: &'static str,
    pub(super) act: fn(&Admin, &Call<'_>) -> Result<Answer, Problem>,
}

const fn get(path: &'static str, act: fn(&Admin, &Call<'_>) -> Result<Answer, Problem>) -> Route {
    Route { method: Method::GET, path, act }
}

pub(super) const ROUTES: &[Route] = &[
    get("/", page::html),
    get("/page.css", page::style),
    get("/page.js", page::script),
    get("/health", status::health),
    get("/ready", status::ready),
    get("/info", status::info),
    get("/ca.pem", status::ca),
    get("/issuing-ca.pem", status::issuing_ca),
    get("/openapi.json", status::openapi),
    get("/events", events::get),
    get("/clock", clock::get),
    Route { method: Method::PUT, path: "/clock", act: clock::put },
    Route { method: Method::POST, path: "/reset", act: status::reset },
    get("/devices", devices::list),
    Route { method: Method::DELETE, path: "/devices", act: devices::forget_all },
    get("/devices/{id}", devices::get),
    Route { method: Method::DELETE, path: "/devices/{id}", act: devices::forget },
    get("/enrollments", enrollments::list),
    Route { method: Method::POST, path: "/enrollments", act: enrollments::add },
    get("/enrollments/{name}", enrollments::get),
    Route { method: Method::PUT, path: "/enrollments/{name}", act: enrollments::put },
    Route { method: Method::DELETE, path: "/enrollments/{name}", act: enrollments::remove },
    Route {
        method: Method::PUT,
        path: "/enrollments/{name}/behavior",
        act: enrollments::put_behavior,
    },
    get("/connections", connections::get),
    Route { method: Method::PUT, path: "/connections", act: connections::put },
];

impl Route {
    /// Whether it is served without a token where others need one: what says no more than that something is served, and
    /// the page, which is the same everywhere and shows nothing without the token.
    pub(super) fn is_open(&self) -> bool {
        ["/health", "/ready", "/", "/page.css", "/page.js"].contains(&self.path)
    }

    pub(super) fn has_body(&self) -> bool {
        [Method::PUT, Method::POST].contains(&self.method)
    }
}

/// The route of a request, and what stands where its path has a name in braces.
pub(super) fn find(head: &request::Parts) -> Result<(&'static Route, String), Problem> {
    let path = head.uri.path();
    let method = if head.method == Method::HEAD { Method::GET } else { head.method.clone() };
    let there: Vec<_> =
        ROUTES.iter().filter_map(|route| Some((route, matched(route.path, path)?))).collect();
    let Some((first, _)) = there.first() else {
        let reason = format!("{path:.128?} is not served; GET /openapi.json says what is");
        return Err(Problem::not_found("path", path, &reason));
    };
    match there.iter().find(|(route, _)| route.method == method) {
        Some((route, name)) => Ok((*route, query::decoded("path", name, false)?)),
        None => {
            let mut allowed: Vec<&str> =
                there.iter().map(|(route, _)| route.method.as_str()).collect();
            if allowed.contains(&"GET") {
                allowed.push("HEAD");
            }
            let allowed = allowed.join(", ");
            let reason = format!("{} takes {allowed}", first.path);
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Err(Problem::new(status, "method", method.as_str(), &reason)
                .with(header::ALLOW, &allowed))
        }
    }
}

/// What stands in a path where the route has a name in braces; empty when it has none, `None` when it is another path.
fn matched<'a>(route: &str, path: &'a str) -> Option<&'a str> {
    let (mut routed, mut parts) = (route.split('/'), path.split('/'));
    let mut name = "";
    loop {
        match (routed.next(), parts.next()) {
            (None, None) => return Some(name),
            (Some(expected), Some(part)) if expected.starts_with('{') && !part.is_empty() => {
                name = part;
            }
            (Some(expected), Some(part)) if expected == part => {}
            _ => return None,
        }
    }
}
