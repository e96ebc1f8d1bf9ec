//! The pages that support reads: what they say, that no text of a machine can do anything in them, and how they look
//! and behave in a real browser.

#[path = "console/browser.rs"]
mod browser;
#[path = "console/fixtures.rs"]
mod fixtures;
#[path = "console/hostile.rs"]
mod hostile;
#[path = "console/pages.rs"]
mod pages;
#[path = "console/site.rs"]
mod site;
