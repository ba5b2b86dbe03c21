//! Several enrollments with one request.
//! See <https://learn.microsoft.com/rest/api/iot-dps/service/individual-enrollment/run-bulk-operation>.

use super::*;

/// How many the service takes at once.
const MOST: usize = 10;

#[derive(Clone, Copy)]
enum Mode {
    Create,
    Update,
    UpdateIfMatchEtag,
    Delete,
}

impl Service {
    /// Does as the mode says with each enrollment; what is wrong with one leaves the others alone.
    pub(super) fn bulk(
        &mut self,
        now: SystemTime,
        kind: Kind,
        body: &[u8],
    ) -> Result<Value, ServiceError> {
        let mut fields = Fields::of_body(body)?;
        let mode: String = fields.need("mode")?;
        let mode = match mode.to_ascii_lowercase().as_str() {
            "create" => Mode::Create,
            "update" => Mode::Update,
            "updateifmatchetag" => Mode::UpdateIfMatchEtag,
            "delete" => Mode::Delete,
            _ => {
                let words = "it must be create, update, updateIfMatchETag or delete";
                return Err(fields.wrong("mode", words));
            }
        };
        let list = match kind {
            Kind::Individual => "enrollments",
            Kind::Group => "enrollmentGroups",
        };
        let items: Vec<Value> = fields.need(list)?;
        if items.is_empty() || items.len() > MOST {
            return Err(fields.wrong(list, &format!("give 1 to {MOST}")));
        }
        fields.end()?;
        // An item that says of no enrollment what to do is wrong before anything is written.
        let items = items.into_iter().enumerate().map(|(place, item)| {
            let mut fields = Fields::of_item(list, place, item)?;
            Ok((record::read_id(&mut fields, kind, None)?, fields))
        });
        let mut errors = Vec::new();
        for (name, fields) in items.collect::<Result<Vec<_>, ServiceError>>()? {
            if let Err(error) = self.bulk_item(now, kind, &name, mode, fields) {
                errors.push(json!({
                    (record::id_field(kind)): name,
                    "errorCode": error.error_code,
                    "errorStatus": error.message,
                }));
            }
        }
        Ok(json!({ "isSuccessful": errors.is_empty(), "errors": errors }))
    }

    fn bulk_item(
        &mut self,
        now: SystemTime,
        kind: Kind,
        name: &str,
        mode: Mode,
        mut fields: Fields,
    ) -> Result<(), ServiceError> {
        let etag: Option<String> = fields.take("etag")?;
        let condition = match mode {
            Mode::Create => Condition::Absent,
            Mode::Update => Condition::Exists,
            Mode::UpdateIfMatchEtag => {
                Condition::Matches(fields.required("etag", etag.as_deref())?)
            }
            Mode::Delete => {
                let id = EnrollmentId::new(kind, name);
                self.check_etag(&id, None)?;
                self.remove_id(&id);
                return Ok(());
            }
        };
        self.write(now, kind, name, fields, condition).map(|_| ())
    }
}
