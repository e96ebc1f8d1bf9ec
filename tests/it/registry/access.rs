//! Who may do what: over every route, and with check-ins that are forged, repeated, too large or not JSON.

use anyhow::{Context, ensure};
use openclaw_sidecar::registry::api::routes::{Audience, ROUTES};
use serde_json::{Value, json};

use super::message;
use crate::support::client::{Client, Reply};
use crate::support::service::{Place, Service};

async fn ask(client: &Client, method: &str, path: &str) -> anyhow::Result<Reply> {
    let body = matches!(method, "POST" | "PUT").then(|| b"{}".to_vec());
    let kind = if path.starts_with("/log") { "application/x-www-form-urlencoded" } else { "application/json" };
    client.request(method, path, &[("content-type", kind)], body).await
}

#[tokio::test]
async fn no_key_but_an_admins_changes_anything() -> anyhow::Result<()> {
    let service = Service::start(Place::new()?, None).await?;
    let enrolled = service.enrol("acme").await?;
    let machine = service.with(&enrolled.credential);
    ensure!(machine.post("/v1/agent/checkin", &message("acme", 1)).await?.status == 200);
    let look = async || -> anyhow::Result<(Value, Value, Value)> {
        let admin = service.admin();
        let (fleet, keys) = (admin.get("/v1/support/summary").await?, admin.get("/v1/admin/keys").await?);
        let history = admin.get("/v1/support/tenants/acme/timeline").await?;
        Ok((fleet.json()["counts"].clone(), keys.json(), history.json()["entries"].clone()))
    };
    let before = look().await?;
    let nobody = service.with("ocs_nobody0000000000000000000000000000000000000");
    for route in ROUTES.iter().filter(|route| !route.path.ends_with("events")) {
        let (method, path) = (route.method.as_str(), route.path.replace("{id}", "acme"));
        let status = async |client: &Client| -> anyhow::Result<u16> { Ok(ask(client, method, &path).await?.status) };
        let (support, stranger, agent) = (service.support(), &nobody, &machine);
        let seen = (status(&support).await?, status(stranger).await?, status(agent).await?);
        match route.guard {
            Audience::Public => ensure!(seen == (200, 200, 200), "{method} {path}: {seen:?}"),
            Audience::Agent => ensure!((seen.0, seen.1) == (401, 401), "{method} {path}: {seen:?}"),
            Audience::Support => ensure!(seen == (200, 401, 401), "{method} {path}: {seen:?}"),
            Audience::Admin => ensure!(seen == (403, 401, 401), "{method} {path}: {seen:?}"),
            // Without a session there is nothing to see; a bearer is none.
            Audience::Page => {
                ensure!([seen.0, seen.1, seen.2].iter().all(|s| matches!(s, 401 | 303)), "{path}: {seen:?}")
            }
        }
    }
    ensure!(look().await? == before, "something changed");
    Ok(())
}

#[tokio::test]
async fn hostile_check_ins_change_nothing() -> anyhow::Result<()> {
    let service = Service::start(Place::new()?, None).await?;
    let (acme, other) = (service.enrol("acme").await?, service.enrol("other").await?);
    let (machine, stranger) = (service.with(&acme.credential), service.with(&other.credential));
    let path = "/v1/agent/checkin";
    ensure!(machine.post(path, &message("acme", 5)).await?.status == 200);
    let view = async || -> anyhow::Result<Value> {
        let mut view = service.support().get("/v1/support/tenants/acme").await?.json();
        for moving in ["at", "age_s", "evidence", "report"] {
            view.as_object_mut().context("an object")?.remove(moving);
        }
        Ok(view)
    };
    let before = view().await?;
    // Repeated and overtaken ones are taken as said before.
    for seq in [5, 4, 1] {
        let mut old = message("acme", seq);
        old["state"]["phase"] = json!("crash_loop");
        ensure!(machine.post(path, &old).await?.status == 200);
    }
    ensure!(stranger.post(path, &message("acme", 6)).await?.code() == "other_tenant");
    let raw = async |body: &[u8]| -> anyhow::Result<Reply> {
        machine.request("POST", path, &[("content-type", "application/json")], Some(body.to_vec())).await
    };
    let deep = format!("{{\"tenant\":\"acme\",\"state\":{}{}", "[".repeat(5000), "]".repeat(5000));
    let good = message("acme", 9).to_string();
    let with = |field: &str, value: Value| {
        let mut message = message("acme", 9);
        message[field] = value;
        message.to_string()
    };
    let bad = [
        String::new(),
        "null".into(),
        "[]".into(),
        deep,
        good[..good.len() / 2].to_owned(),
        "\u{0}".repeat(100),
        with("epoch", json!(0)),
        with("seq", json!(u64::MAX)),
        with("seq", json!(-1)),
        with("boot_id", json!("a b")),
        with("tenant", json!("../acme")),
        with("state", json!(7)),
        good.replace("\"seq\":9", "\"seq\":9,\"seq\":10"),
    ];
    for body in bad {
        let reply = raw(body.as_bytes()).await?;
        ensure!(reply.status == 400, "{}: {}", reply.text(), body.chars().take(80).collect::<String>());
    }
    ensure!(raw(&vec![b' '; 20_000]).await?.status == 413);
    ensure!(view().await? == before, "something changed");
    // What is not known yet is passed over: a newer sidecar may say more.
    let more = good.replace("\"seq\":9", "\"seq\":9,\"command\":\"reboot\"");
    ensure!(raw(more.as_bytes()).await?.status == 200);
    Ok(())
}

/// Every refusal arrives whole, says what is wrong with which field, and what to do.
#[tokio::test]
async fn refusals_can_be_read() -> anyhow::Result<()> {
    let service = Service::start(Place::new()?, None).await?;
    let machine = service.with(&service.enrol("acme").await?.credential);
    let nobody = service.with("ocr_nobody0000000000000000000000000000000000000");
    let path = "/v1/agent/checkin";
    let send = async |client: &Client, body: Vec<u8>| -> anyhow::Result<Reply> {
        client.request("POST", path, &[("content-type", "application/json")], Some(body)).await
    };
    for size in [60_000, 300_000, 900_000] {
        for (client, status) in [(&machine, 413), (&nobody, 413)] {
            for _ in 0..5 {
                let reply = send(client, vec![b' '; size]).await.with_context(|| format!("{size} bytes"))?;
                ensure!(reply.status == status, "{}", reply.text());
            }
        }
    }
    let mut wrong = message("acme", 1);
    wrong["state"]["pairing"] = json!({"pending": [{"age_s": "old"}]});
    let unnamed = json!({"tenant": "acme"});
    for (body, named) in [(&wrong, "at state.pairing.pending[0].age_s: invalid type"), (&unnamed, "missing field")] {
        let reply = send(&machine, body.to_string().into_bytes()).await?;
        ensure!(reply.status == 400 && reply.text().contains(named), "{}", reply.text());
        ensure!(reply.json()["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{}", reply.text());
    }
    let other_method = machine.get(path).await?;
    ensure!(other_method.status == 405 && other_method.header("allow") == Some("POST"), "{}", other_method.text());
    let support = service.support();
    for (client, path, status) in [
        (&support, "/v1/support/tenants/none/events", 404),
        (&support, "/none", 404),
        (&machine, "/none", 404),
        (&nobody, "/none", 401),
    ] {
        ensure!(client.get(path).await?.status == status, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn browsers_are_shown_pages() -> anyhow::Result<()> {
    let service = Service::start(Place::new()?, None).await?;
    let console = service.console().await?;
    for (path, status, shown) in [("/none", 404, "There is no such page"), ("/v1/support/tenants", 401, "name=\"key\"")]
    {
        let page = console.page(path).await?;
        let kind = page.header("content-type").context("a type")?;
        ensure!(page.status == status && kind.starts_with("text/html"), "{path}: {} {kind}", page.status);
        ensure!(page.text().contains(shown), "{path}: {}", page.text());
    }
    let stranger = service.public().request("GET", "/none", &[("accept", "text/html")], None).await?;
    ensure!(stranger.status == 401 && stranger.text().contains("name=\"key\""), "{}", stranger.text());
    Ok(())
}

#[tokio::test]
async fn lists_are_read_page_by_page_in_either_order() -> anyhow::Result<()> {
    let service = Service::start(Place::new()?, None).await?;
    for (tenant, phase) in [("a", "ready"), ("b", "crash_loop"), ("c", "ready"), ("d", "degraded"), ("e", "crash_loop")]
    {
        let mut message = message(tenant, 1);
        message["state"]["phase"] = json!(phase);
        let machine = service.with(&service.enrol(tenant).await?.credential);
        ensure!(machine.post("/v1/agent/checkin", &message).await?.status == 200);
    }
    for (order, expected) in [("", "abcde"), ("&order=id", "abcde"), ("&order=urgency", "bedac")] {
        let (mut found, mut after) = (String::new(), String::new());
        loop {
            let path = format!("/v1/support/tenants?limit=2{order}{after}");
            let page = service.support().get(&path).await?.json();
            for tenant in page["tenants"].as_array().context("no tenants")? {
                found += tenant["id"].as_str().context("no id")?;
            }
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        ensure!(found == expected, "{order}: {found}");
    }
    for (wrong, named) in
        [("order=age", "order"), ("order=urgency&after=a", "after"), ("order=urgency&after=x.a", "after")]
    {
        let reply = service.support().get(&format!("/v1/support/tenants?{wrong}")).await?;
        ensure!(reply.status == 400 && reply.text().contains(named), "{wrong}: {}", reply.text());
    }
    Ok(())
}
