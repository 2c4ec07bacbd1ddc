//! The control schema: nothing that `run` needs, but where `backfill` asks.

use super::Look;
use crate::connector::Fault;
use crate::postgres::catalog::ServerFacts;
use crate::postgres::control::Control;
use crate::postgres::migrate::{ControlSchema, grants};

const SUBJECT: &str = "schema tablecast";
/// SQLSTATE `insufficient_privilege`.
const NO_PRIVILEGE: &str = "42501";

impl Look<'_> {
    pub(super) async fn control_schema(&mut self, control: &Control, server: &ServerFacts) -> Result<(), Fault> {
        let migrate = format!("tablecast migrate {}", self.connector.name);
        let schema = match control.control_schema().await {
            Ok(schema) => schema,
            Err(error) if error.sqlstate() == Some(NO_PRIVILEGE) => {
                let message = "is somebody else's: `tablecast backfill` would be refused";
                self.warning(SUBJECT, message, grants(&server.user));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        match schema {
            ControlSchema::Current => self.ok(SUBJECT, "is there, for `tablecast backfill`"),
            // On its primary it could be made, but no daemon of this connector could say how far it is.
            _ if server.in_recovery => {
                self.ok(SUBJECT, "a standby takes no requests: `tablecast backfill` needs a primary")
            }
            ControlSchema::Missing => self.note(SUBJECT, "isn't there: `tablecast backfill` would need it", migrate),
            ControlSchema::Old(version) => {
                self.warning(
                    SUBJECT,
                    format!("is at version {version}: `tablecast backfill` needs a later one"),
                    migrate,
                );
            }
            ControlSchema::Newer(version) => {
                let message = format!("is at version {version}: a later tablecast than this one has made it");
                self.warning(SUBJECT, message, "-- run the same version of tablecast everywhere");
            }
        }
        Ok(())
    }
}
