//! The console's pages and what they load.

use std::sync::Arc;

use super::{Answer, Call, Context, Endpoint};
use crate::api::problem::Problem;

pub(super) async fn answer(_context: &Arc<Context>, _endpoint: Endpoint, _call: &Call) -> Result<Answer, Problem> {
    Err(Problem::new("internal", "pages follow"))
}
