//! The pages in a real browser, under the content security policy they are served with.

use std::time::Duration;

use openclaw_sidecar::registry::console::{fleet_page, login_page, problem_page, tenant_page};
use openclaw_sidecar::registry::tenant::Status;
use openclaw_sidecar::registry::view::TenantView;
use serde_json::{Value, json};

use super::fixtures::{self, NOW, Story};
use super::hostile;
use super::site::Site;
use crate::support::chromium::{Chromium, Page};

const LIMIT: Duration = Duration::from_secs(60);
/// The narrowest phone, a common one, a desk.
const SCREENS: [(&str, u64, u64); 3] = [("narrow", 360, 640), ("phone", 390, 844), ("desk", 1280, 900)];
const PICTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/console");

fn all_pages() -> Vec<(String, String)> {
    let stories = fixtures::fleet();
    let mut fleet = fixtures::fleet_page(&stories);
    fleet.summary.blind = fixtures::blind();
    fleet.fleet.next = Some("t-f100".to_owned());
    let mut none = fixtures::fleet_page(&stories);
    none.fleet.tenants.clear();
    none.filter.status = Some(Status::Crashed);
    let fine: Vec<Story> = stories.iter().filter(|story| story.line().status == Status::Ready).cloned().collect();
    let mut pages: Vec<(String, String)> =
        stories.iter().map(|story| (format!("/tenants/{}", story.row.id), tenant_page(&story.page()))).collect();
    pages.extend([
        ("/".to_owned(), fleet_page(&fleet)),
        ("/empty".to_owned(), fleet_page(&fixtures::fleet_page(&[]))),
        ("/nothing".to_owned(), fleet_page(&none)),
        ("/fine".to_owned(), fleet_page(&fixtures::fleet_page(&fine))),
        ("/login".to_owned(), login_page(Some("This key is not known, or it has expired."))),
        ("/problem".to_owned(), problem_page(503, "The store is not available", "the database is locked", "Wait.")),
        ("/hostile".to_owned(), hostile::page_of(hostile::TEXT)),
        ("/hostile-fleet".to_owned(), hostile::fleet_of(hostile::TEXT)),
        ("/unbroken".to_owned(), hostile::page_of(&"Ẅ".repeat(300))),
        ("/unbroken-fleet".to_owned(), hostile::fleet_of(&"م".repeat(150))),
    ]);
    pages
}

async fn number(page: &mut Page<'_>, expression: &str) -> anyhow::Result<u64> {
    Ok(page.evaluate(expression).await?.as_u64().unwrap_or_default())
}

/// Every page on every screen, by day and by night: nothing sticks out to the side, no text ran as a script, and the
/// policy let style and script in. The pictures stay in `target/console`.
#[tokio::test]
async fn every_page_fits_every_screen() -> anyhow::Result<()> {
    std::fs::create_dir_all(PICTURES)?;
    let pages = all_pages();
    let site = Site::start(pages.clone()).await?;
    let mut chromium = Chromium::start().await?;
    for (path, _) in &pages {
        let mut page = chromium.open(&site.url(path)).await?;
        page.wait_for("document.readyState === 'complete' && document.documentElement.className === 'js'", LIMIT)
            .await?;
        for (screen, width, height) in SCREENS {
            for dark in [false, true] {
                page.screen(width, height, dark).await?;
                let wide = number(&mut page, "document.documentElement.scrollWidth").await?;
                assert!(wide <= width, "{path} is {wide} px wide on a screen of {width} px");
                if screen != "narrow" {
                    let name = path.trim_start_matches('/').replace('/', "-");
                    let shade = if dark { "dark" } else { "light" };
                    let file =
                        format!("{PICTURES}/{}-{screen}-{shade}.png", if name.is_empty() { "fleet" } else { &name });
                    page.screenshot(file.as_ref()).await?;
                }
            }
        }
        assert_eq!(page.evaluate("typeof window.hacked").await?, json!("undefined"), "{path} ran a text");
        assert_eq!(page.evaluate("getComputedStyle(document.body).margin").await?, json!("0px"), "{path} has no style");
        page.close().await?;
    }
    chromium.close().await
}

/// The seconds that pass for whoever reads the tenant that lets somebody in.
fn later(story: &Story, seconds: u64) -> String {
    let mut page = story.page();
    page.view = TenantView::of(&story.row, story.report.as_deref(), NOW.plus_ms(seconds * 1000), &[]);
    tenant_page(&page)
}

/// A change arrives while somebody reads: the page shows it, and focus, open parts and scroll stay.
#[tokio::test]
async fn a_change_shows_by_itself_and_moves_nothing() -> anyhow::Result<()> {
    let stories = fixtures::fleet();
    let broken = &stories[4];
    let path = format!("/tenants/{}", broken.row.id);
    let site = Site::start([(path.clone(), tenant_page(&broken.page()))]).await?;
    let mut chromium = Chromium::start().await?;
    let mut page = chromium.open(&site.url(&path)).await?;
    page.screen(390, 500, false).await?;
    page.wait_for("document.getElementById('live').textContent === 'live'", LIMIT).await?;
    page.evaluate(
        "document.querySelector('#finding-1 details').open = true; document.getElementById('finding-1').focus(); \
                   window.kept = document.getElementById('finding-1'); scrollTo(0, 200); 0",
    )
    .await?;
    let state = fixtures::with(
        fixtures::report(),
        vec![
            fixtures::finding("disk_low", "error", "The volume is full", "Enlarge it.", &[]),
            fixtures::finding("gateway_slow", "warning", "It is slow", "Wait.", &["rpc_ms=1"]),
        ],
    );
    let changed = broken.clone().says(1, &state);
    site.change(&path, later(&changed, 3));
    page.wait_for("document.getElementById('finding-0').innerText.includes('The volume is full')", LIMIT).await?;
    let stays = "document.activeElement === window.kept && window.kept.isConnected \
                 && window.kept.querySelector('details').open && scrollY === 200";
    assert_eq!(page.evaluate(stays).await?, json!(true), "focus, an open part or the scroll was lost");
    // The server's clock counts: 4 s after it was received by its own account, whatever the machine's clock says.
    let heard = "document.querySelector('.headline time[data-counts=ago]').textContent";
    page.wait_for(&format!("/^([4-9]|1[0-9]) s ago$/.test({heard})"), LIMIT).await?;

    site.set_up(false);
    page.wait_for("document.getElementById('live').dataset.state === 'reconnecting'", LIMIT).await?;
    page.wait_for("/^stale since \\d\\d:\\d\\d$/.test(document.getElementById('live').textContent)", LIMIT).await?;
    site.set_up(true);
    page.wait_for("document.getElementById('live').textContent === 'live'", LIMIT).await?;
    chromium.close().await
}

/// A browser keeps six connections to one place: a page that nobody looks at must not hold one of them.
#[tokio::test]
async fn a_page_that_nobody_looks_at_holds_no_connection() -> anyhow::Result<()> {
    let site = Site::start([("/t".to_owned(), tenant_page(&fixtures::fleet()[0].page()))]).await?;
    let mut chromium = Chromium::start().await?;
    let mut page = chromium.open(&site.url("/t")).await?;
    let live = "document.getElementById('live').textContent === 'live'";
    page.wait_for(live, LIMIT).await?;
    assert_eq!(site.listeners(), 1);
    let look = |hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }}); \
             document.dispatchEvent(new Event('visibilitychange')); 0"
        )
    };
    page.evaluate(&look(true)).await?;
    tokio::time::timeout(LIMIT, site.until_listeners(0)).await?;
    page.evaluate(&look(false)).await?;
    page.wait_for(live, LIMIT).await?;
    chromium.close().await
}

/// A request lapses before the reader's eyes, without the registry.
#[tokio::test]
async fn a_request_counts_down_and_lapses() -> anyhow::Result<()> {
    let stories = fixtures::fleet();
    let story = stories.iter().find(|story| story.row.id == "t-d7aa").expect("it is there");
    let site = Site::start([("/t".to_owned(), later(story, 233))]).await?;
    let mut chromium = Chromium::start().await?;
    let mut page = chromium.open(&site.url("/t")).await?;
    let lapsed = |n: u8| format!("document.querySelectorAll('.request')[{n}].classList.contains('lapsed')");
    page.wait_for("document.documentElement.className === 'js'", LIMIT).await?;
    assert_eq!(page.evaluate(&lapsed(1)).await?, json!(true), "the second one had less time");
    page.wait_for(&lapsed(0), LIMIT).await?;
    page.wait_for_text("lapsed", LIMIT).await?;
    chromium.close().await
}

/// From the fleet to the remedy: a tile, a line, and there it is; by the keyboard as well.
#[tokio::test]
async fn two_steps_lead_from_the_fleet_to_the_remedy() -> anyhow::Result<()> {
    let stories = fixtures::fleet();
    let crashed: Vec<Story> = stories.iter().filter(|s| s.line().status == Status::Crashed).cloned().collect();
    let mut pages: Vec<(String, String)> =
        crashed.iter().map(|s| (format!("/tenants/{}", s.row.id), tenant_page(&s.page()))).collect();
    pages.push(("/".to_owned(), fleet_page(&fixtures::fleet_page(&stories))));
    pages.push(("/?status=crashed".to_owned(), fleet_page(&fixtures::fleet_page(&crashed))));
    let site = Site::start(pages).await?;
    let mut chromium = Chromium::start().await?;
    let mut page = chromium.open(&site.url("/")).await?;
    page.screen(390, 844, false).await?;
    let ready = "document.readyState === 'complete' && document.documentElement.className === 'js'";
    page.wait_for(ready, LIMIT).await?;
    page.evaluate("document.querySelector('.tile[href=\"/?status=crashed\"]').click()").await?;
    page.wait_for(&format!("location.search === '?status=crashed' && {ready}"), LIMIT).await?;
    page.evaluate("document.querySelector('a.open').click()").await?;
    page.wait_for(&format!("location.pathname === '/tenants/t-81ab' && {ready}"), LIMIT).await?;
    let seen = "(() => { const r = document.querySelector('.remedy').getBoundingClientRect(); \
                return r.top >= 0 && r.bottom <= innerHeight; })()";
    assert_eq!(page.evaluate(seen).await?, Value::Bool(true), "the remedy is not on the screen of a phone");

    page.press("g").await?;
    page.wait_for(&format!("location.pathname === '/' && {ready}"), LIMIT).await?;
    page.press("j").await?;
    page.press("j").await?;
    page.press("k").await?;
    page.press("j").await?;
    assert_eq!(page.evaluate("document.activeElement.textContent").await?, json!("t-81ab"));
    page.press("/").await?;
    assert_eq!(page.evaluate("document.activeElement.id").await?, json!("q"));
    // What is typed is text, not a command.
    page.press("g").await?;
    assert_eq!(page.evaluate("document.activeElement.value").await?, json!("g"));
    page.evaluate("document.activeElement.blur()").await?;
    page.press("?").await?;
    assert_eq!(page.evaluate("document.getElementById('keys').open").await?, json!(true));
    page.evaluate("document.getElementById('keys').close()").await?;
    page.press("j").await?;
    page.press("Enter").await?;
    page.wait_for("location.pathname.startsWith('/tenants/')", LIMIT).await?;
    chromium.close().await
}
