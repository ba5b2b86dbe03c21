//! Queries: all of one kind, page by page.

use std::ops::Bound;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;

/// How many there are in a page when the caller does not say, and at most.
const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// A page to answer with.
struct Page<'a> {
    /// What the service calls its items.
    item_type: &'static str,
    /// The name that the page begins after; empty for the first page.
    after: String,
    size: usize,
    given_size: Option<&'a str>,
}

impl<'a> Page<'a> {
    fn read(
        item_type: &'static str,
        tables: &[&str],
        request: &ApiRequest<'a>,
        body: &[u8],
    ) -> Result<Self, ServiceError> {
        let mut fields = Fields::of_body(body)?;
        let query: String = fields.need("query")?;
        fields.end()?;
        let words: Vec<_> = query.split_ascii_whitespace().collect();
        let is = |word: &str, wanted: &str| word.eq_ignore_ascii_case(wanted);
        let is_all = match words.as_slice() {
            ["*"] => true,
            [select, "*", from, table] => {
                is(select, "select") && is(from, "from") && tables.iter().any(|it| is(table, it))
            }
            _ => false,
        };
        if !is_all {
            let reason = format!(
                "query: the emulator knows \"*\" and \"SELECT * FROM {}\"",
                tables.first().unwrap_or(&"")
            );
            return Err(ServiceError::bad_request(&reason));
        }
        let size = match request.max_item_count.map(str::parse::<i64>) {
            // What clients send who leave it to the service.
            None | Some(Ok(-1)) => DEFAULT_PAGE,
            Some(Ok(count @ 1..)) => {
                usize::try_from(count).unwrap_or(LARGEST_PAGE).min(LARGEST_PAGE)
            }
            Some(_) => {
                let reason = "x-ms-max-item-count: it must be a number, 1 or more";
                return Err(ServiceError::bad_request(reason));
            }
        };
        let after = match request.continuation.filter(|token| !token.is_empty()) {
            None => String::new(),
            Some(token) => after(item_type, token).ok_or_else(|| {
                let reason = "x-ms-continuation: it is no token that this query has given";
                ServiceError::bad_request(reason)
            })?,
        };
        Ok(Self { item_type, after, size, given_size: request.max_item_count })
    }

    /// Takes the page from what comes after its beginning, in the order of the names.
    fn answer(self, items: impl Iterator<Item = (String, Value)>) -> ApiReply {
        let mut items = items.peekable();
        let page: Vec<_> = items.by_ref().take(self.size).collect();
        let last = page.last().map(|(name, _)| name.clone());
        let values: Vec<_> = page.into_iter().map(|(_, value)| value).collect();
        let mut reply = ApiReply::ok(&Value::Array(values));
        reply.headers.push(("x-ms-item-type", self.item_type.to_owned()));
        let size = self.given_size.map_or_else(|| self.size.to_string(), str::to_owned);
        reply.headers.push(("x-ms-max-item-count", size));
        if let (Some(last), Some(_)) = (last, items.peek()) {
            let token = STANDARD.encode(format!("{} {last}", self.item_type));
            reply.headers.push(("x-ms-continuation", token));
        }
        reply
    }
}

/// The name in a continuation token, which goes on after it whatever was added or removed meanwhile.
fn after(item_type: &str, token: &str) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(token).ok()?).ok()?;
    let name = text.strip_prefix(item_type)?.strip_prefix(' ')?;
    Some(name.to_owned())
}

impl Service {
    pub(super) fn query_enrollments(
        &self,
        kind: Kind,
        request: &ApiRequest<'_>,
        body: &[u8],
    ) -> Result<ApiReply, ServiceError> {
        let (item_type, table) = match kind {
            Kind::Individual => ("enrollment", "enrollments"),
            Kind::Group => ("enrollmentGroup", "enrollmentGroups"),
        };
        let page = Page::read(item_type, &[table], request, body)?;
        let range = (Bound::Excluded(page.after.as_str()), Bound::Unbounded);
        let all = self.enrollments.of_kind(kind).range::<str, _>(range);
        let records: Vec<_> = all
            .take(page.size.saturating_add(1))
            .filter_map(|(name, _)| {
                let record = self.record(&EnrollmentId::new(kind, name), Keys::Hidden)?;
                Some((name.clone(), record))
            })
            .collect();
        Ok(page.answer(records.into_iter()))
    }

    pub(super) fn query_registrations(
        &self,
        group: &str,
        request: &ApiRequest<'_>,
        body: &[u8],
    ) -> Result<ApiReply, ServiceError> {
        let id = EnrollmentId::new(Kind::Group, group);
        self.check_etag(&id, None)?;
        let tables = ["registrations", "enrollmentGroups"];
        // The newer api-versions have no body here.
        let body = if body.is_empty() { br#"{"query":"*"}"# } else { body };
        let page = Page::read("deviceRegistration", &tables, request, body)?;
        let devices = self.devices_of(&id);
        let devices = devices.into_iter().filter(|device| *device > page.after);
        let states: Vec<_> = devices
            .filter_map(|device| Some((device.clone(), self.registration_state(&device)?)))
            .take(page.size.saturating_add(1))
            .collect();
        Ok(page.answer(states.into_iter()))
    }
}
