//! What the control plane wants of the tenant: a secret and a new desired state, for the gateway's next start.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::{
    support::sidecar::new_token,
    tenant::Tenant,
    terminal::{self, say, step},
};

/// The variable that the secret becomes.
pub const SECRET: &str = "OPENAI_API_KEY";
/// The tenant's new domain.
pub const DOMAIN: &str = "https://chat.acme.example";
pub const IDENTITY: &str = "# IDENTITY.md\n\n- **Name:** Ada\n";

pub async fn run(tenant: &Tenant) -> anyhow::Result<()> {
    secret(tenant).await?;
    desired_state(tenant).await
}

async fn secret(tenant: &Tenant) -> anyhow::Result<()> {
    step("The tenant gets a secret");
    let value = new_token();
    let path = format!("/v1/secrets/{SECRET}");
    tenant.control_plane.put(&path, "secret.json", None, &json!({ "value": value })).await?;
    let listed = tenant.control_plane.get("/v1/secrets").await?;
    terminal::json(&listed);
    ensure!(listed["secrets"][0]["name"] == SECRET && !listed.to_string().contains(&value), "{listed}");
    say("It is sealed on the volume and never shown again; the gateway gets it at its next start, by its environment.");
    Ok(())
}

/// A dry run first, then the same for the next start.
async fn desired_state(tenant: &Tenant) -> anyhow::Result<()> {
    step("The control plane wants something else of the gateway: a new domain, and a name for the agent");
    let present = tenant.control_plane.read("/v1/desired").await?;
    let generation = present["generation"].as_u64().unwrap_or_default();
    let wanted = changed(&present["document"])?;
    say("The document of before, with these two parts anew:");
    terminal::output(&format!("\"gateway\": {{ …, \"allowed_origins\": {} }}", wanted["gateway"]["allowed_origins"]));
    terminal::output(&format!("\"files\": {}", wanted["files"]));
    let path = "/v1/desired?dry_run=true";
    let tried = tenant.control_plane.put(path, "desired.json", Some(generation), &wanted).await?;
    terminal::json(&tried);
    ensure!(tried["outcome"] == "dry_run", "not tried: {tried}");
    ensure!(tried["changes"].to_string().contains(DOMAIN), "the domain is not among the changes: {tried}");
    say("So far nothing is kept. The same without dry_run, for the next start:");
    let stored = tenant.control_plane.put("/v1/desired", "desired.json", Some(generation), &wanted).await?;
    ensure!(stored["outcome"] == "stored" && stored["generation"] == generation + 1, "not stored: {stored}");
    terminal::output(&format!("{}, generation {}", stored["outcome"], stored["generation"]));
    Ok(())
}

fn changed(document: &Value) -> anyhow::Result<Value> {
    let mut wanted = document.clone();
    let origins = wanted["gateway"]["allowed_origins"].as_array_mut();
    origins.ok_or_else(|| anyhow::anyhow!("no origins: {document}"))?.push(json!(DOMAIN));
    wanted["files"] = json!([{ "path": "workspace/IDENTITY.md", "content": IDENTITY }]);
    Ok(wanted)
}
