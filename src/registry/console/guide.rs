//! What to check where no finding says it: the status itself is all that is known.

use crate::registry::status::Facet;
use crate::registry::tenant::Status;

/// Advice in the order in which to follow it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advice {
    /// What is the matter.
    pub(super) title: &'static str,
    /// What to do, first things first.
    pub(super) steps: &'static [&'static str],
}

/// Advice for a status without findings, or for one that findings cannot explain: those of a silent machine are old.
pub(super) fn for_status(status: Status) -> Advice {
    let (title, steps): (_, &[_]) = match status {
        Status::Unreachable => (
            "The machine is silent: it is gone, cut off, or its sidecar cannot start",
            &[
                "At the platform: does the machine exist, and does it run? Start it if it stopped.",
                "It runs: read the end of its log for lines of openclaw-sidecar, and whether memory or disk ran out.",
                "The sidecar runs: can it reach this registry (DNS, egress, certificate)? `openclaw-sidecar status` on the machine says so.",
            ],
        ),
        Status::Provisioning => (
            "It never checked in",
            &[
                "At the platform: was the machine created and started? Its first boot may take minutes.",
                "In its environment: are registry.url and registry.tenant set, and is the tenant exactly the name above?",
                "Its credential must be the one this tenant was created with: a refused one is in the sidecar's log as `registry_refuses_us`.",
                "Is openclaw-sidecar the entrypoint, or did the platform's start command replace it?",
            ],
        ),
        Status::Unknown => (
            "Too little is known to say how it is",
            &[
                "A machine in quiet mode speaks only when something happens: ask its sidecar for /v1/state through the control plane.",
                "If it does not answer, look at the platform whether the machine runs.",
            ],
        ),
        Status::Crashed => (
            "The gateway does not stay up, and no finding says why",
            &[
                "See its last exit below; /v1/state through the control plane has the gateway's last lines.",
                "What it printed before those is in the machine's log at the platform.",
            ],
        ),
        Status::Degraded => (
            "Something does not work, and no finding says what",
            &[
                "See the reason above and the facts below, then what the gateway printed: the machine's log at the platform.",
            ],
        ),
        Status::Booting => (
            "It starts",
            &["Nothing yet. On a small machine this takes up to 5 minutes; after 10 it is called degraded."],
        ),
        Status::PairingPending => (
            "Somebody waits to be let in",
            &["Ask the user whether it is them, then decide the request in the control plane."],
        ),
        Status::Ready => ("Nothing to do", &[]),
        Status::Asleep => (
            "Nothing to do: it said goodbye",
            &["Wake it through the control plane or the platform; it checks in by itself."],
        ),
    };
    Advice { title, steps }
}

/// Advice for what no status may hide, where no finding covers it.
pub(super) fn for_facet(facet: Facet) -> Option<Advice> {
    let (title, steps): (_, &[_]) = match facet {
        Facet::Conflict => (
            "Two machines report as this tenant: what is shown may be of either",
            &[
                "At the platform: find the second machine or the copy of the volume, and stop the one that should not run.",
                "If both are wanted, create a tenant of its own for one of them.",
            ],
        ),
        Facet::Restored => (
            "The volume went back in time: it was restored from a copy",
            &[
                "If that was intended, nothing. Devices approved and settings changed since the copy are lost: check both with the user.",
            ],
        ),
        _ => return None,
    };
    Some(Advice { title, steps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Code;

    #[test]
    fn whatever_is_named_to_be_called_exists() {
        let advice = Status::ALL.into_iter().map(for_status);
        let facets = [Facet::Conflict, Facet::Restored, Facet::ProvisioningFailed, Facet::Errors, Facet::Warnings];
        let advice = advice.chain(facets.into_iter().filter_map(for_facet)).flat_map(|advice| advice.steps);
        let remedies = Code::ALL.iter().map(|code| code.remedy());
        let known = |path: &str| crate::api::routes::ROUTES.iter().any(|route| route.path == path);
        let mut named = 0;
        for text in advice.copied().chain(remedies) {
            for path in text.split([' ', ',', ';', ')', '(']).filter(|word| word.starts_with("/v1/")) {
                assert!(known(path.trim_end_matches(['.', ':'])), "{path} in {text:?}");
                named += 1;
            }
        }
        assert!(named > 1, "nothing was looked at");
    }
}
