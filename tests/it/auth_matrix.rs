//! Who may do what: every route of the table with every kind of credential, and what happens when credentials change.

#[path = "auth_matrix/matrix.rs"]
mod matrix;
#[path = "auth_matrix/reload.rs"]
mod reload;
#[path = "auth_matrix/scene.rs"]
pub mod scene;
#[path = "auth_matrix/wire.rs"]
pub mod wire;
