//! Pages for support: pure functions from views to HTML, and the files beside them.
//!
//! ```text
//! fleet (status tiles, filters, one line each) -> tenant (what to do, who waits, why we say so, facts, history)
//! ```
//!
//! Everything works without the script; it only keeps pages live, ages moving and hands on the keyboard. Texts of a
//! machine and its visitors are hostile: they are escaped by `maud`, bounded and isolated by [`text`].

mod facts;
mod fleet;
mod guide;
mod history;
mod icon;
mod shell;
mod tenant;
mod text;

pub use fleet::{FleetPage, fleet_page};
pub use shell::{CSS, JS, login_page, problem_page};
pub use tenant::{TenantPage, tenant_page};
