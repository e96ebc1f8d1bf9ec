//! What the diagnosis is given to look at.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::api;
use crate::clock::RegistryClock;
use crate::config::{Config, Env};
use crate::files;
use crate::gateway::Gateway;
use crate::http::tls::Certificate;
use crate::launcher::layout;
use crate::op::findings;
use crate::op::findings::facts::{Platform, Validity};
use crate::op::findings::watch::{Sources, Watch};
use crate::state::State;

/// The task that watches for problems, not started yet.
pub(super) fn watch(
    config: &Config,
    env: &Env,
    launch: Option<&api::Launch>,
    state: &State,
    gateway: &Gateway,
    certificate: Arc<Certificate>,
    registry_clock: RegistryClock,
) -> Watch {
    let life = move || certificate.validity().map(|(from, until)| Validity { from, until });
    Watch::new(Sources {
        state: state.clone(),
        gateway: gateway.clone(),
        config: config.gateway.clone(),
        launcher: launch.map(|launch| launch.lifecycle.launcher.clone()),
        secrets: launch.map(|launch| launch.secrets.clone()),
        certificate: Box::new(life),
        disks: disks(config, launch.is_some()),
        launched_around: if launch.is_some() { None } else { around(config, env) },
        registry_clock,
    })
}

/// Directories whose disks must not fill; the gateway's lies beside ours.
fn disks(config: &Config, launched: bool) -> Vec<PathBuf> {
    let volume = launched.then(|| config.launch.volume.clone());
    [config.state_dir.clone()].into_iter().chain(volume).collect()
}

/// In attach mode: what says that we were meant to launch the gateway.
fn around(config: &Config, env: &Env) -> Option<Vec<(&'static str, String)>> {
    let hints = [("fly", "FLY_MACHINE_ID"), ("railway", "RAILWAY_ENVIRONMENT_ID")];
    let name = hints.into_iter().find(|(_, variable)| env.contains_key(*variable)).map(|(name, _)| name);
    let first_process = files::read_text(Path::new("/proc/1/comm"), 64).ok().map(|name| name.trim().to_owned());
    let laid_out = files::exists(&config.launch.volume.join(layout::MARKER));
    findings::around(config.launch_is_set_up(), laid_out, &Platform { name, first_process })
}
