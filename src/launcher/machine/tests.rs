//! The machine's rules one by one, and what holds after any sequence of events.

use proptest::prelude::*;

use super::*;

const S: fn(u64) -> Duration = Duration::from_secs;

fn exited(why: &str) -> Event {
    Event::Exited { config_class: false, why: why.to_owned() }
}

fn refused() -> Event {
    Event::Exited { config_class: true, why: "Config invalid".to_owned() }
}

/// A machine whose gateway runs with this generation.
fn running(generation: u64) -> Machine {
    let mut machine = Machine::new(7);
    assert_eq!(machine.on(Event::Start, S(0)), [Effect::Seed { avoid: None, restore: false }]);
    machine.on(Event::Seeded(generation), S(1));
    assert_eq!(machine.state(), State::Starting);
    machine
}

fn ready(generation: u64) -> Machine {
    let mut machine = running(generation);
    assert_eq!(machine.on(Event::Health(Health::Answers), S(10)), [Effect::Adopt]);
    assert_eq!(machine.state(), State::Ready);
    machine
}

#[test]
fn an_exit_is_followed_by_a_growing_pause_and_then_by_a_crash_loop() {
    let mut machine = ready(0);
    let mut now = S(20);
    for n in 0..4u32 {
        assert_eq!(machine.on(exited("exit 1"), now), []);
        assert_eq!(machine.state(), State::Backoff);
        let pause = machine.due().unwrap().saturating_sub(now);
        let expected = S(1) * 2u32.pow(n);
        assert!(pause >= expected * 3 / 4 && pause <= expected * 5 / 4, "{pause:?}");
        now = machine.due().unwrap();
        assert_eq!(machine.on(Event::Tick, now), [Effect::Seed { avoid: None, restore: false }]);
        machine.on(Event::Seeded(0), now);
    }
    machine.on(exited("exit 1"), now);
    assert_eq!(machine.state(), State::CrashLoop);
    assert!(machine.reason().contains("5 times") && machine.reason().contains("exit 1"));
    assert_eq!(machine.on(Event::Tick, now + S(299)), []);
    assert_eq!(machine.on(Event::Tick, now + S(300)).len(), 1);
}

#[test]
fn ten_minutes_of_readiness_forgive() {
    let mut machine = ready(0);
    machine.on(exited("one"), S(20));
    machine.on(Event::Tick, S(30));
    machine.on(Event::Seeded(0), S(31));
    machine.on(Event::Health(Health::Answers), S(32));
    machine.on(Event::Tick, S(32 + 600));
    machine.on(exited("two"), S(700));
    assert!(machine.due().unwrap() <= S(702), "the pause is the first one again");
}

#[test]
fn a_new_generation_that_the_gateway_refuses_is_rolled_back() {
    let mut machine = ready(3);
    machine.on(Event::Stop(Then::Restart, S(8)), S(20));
    assert_eq!(machine.on(exited("stopped"), S(21)), [Effect::Seed { avoid: None, restore: false }]);
    machine.on(Event::Seeded(4), S(22));
    assert_eq!(machine.on(refused(), S(25)), [Effect::Seed { avoid: Some(4), restore: false }]);
    assert_eq!(machine.failed_generation(), Some(4));
    machine.on(Event::Seeded(3), S(26));
    assert_eq!(machine.on(Event::Health(Health::Answers), S(30)), [Effect::Adopt]);
}

#[test]
fn a_generation_that_never_becomes_ready_is_rolled_back_and_a_tried_one_is_waited_for() {
    let mut machine = running(4);
    assert_eq!(machine.on(Event::Looked { stopped: false, cpu_ticks: 1 }, S(800)), []);
    assert_eq!(machine.on(Event::Looked { stopped: false, cpu_ticks: 2 }, S(901)), [Effect::Kill]);
    assert_eq!(machine.on(exited("killed"), S(902)), [Effect::Seed { avoid: Some(4), restore: false }]);
    machine.on(Event::Seeded(3), S(903));
    machine.on(Event::Health(Health::Answers), S(950));
    machine.on(exited("x"), S(960));
    machine.on(Event::Tick, S(970));
    machine.on(Event::Seeded(3), S(971));
    assert_eq!(machine.on(Event::Looked { stopped: false, cpu_ticks: 3 }, S(5000)), []);
}

#[test]
fn a_poisoned_configuration_is_restored_then_doctored_then_given_up_slowly() {
    let mut machine = ready(3);
    machine.on(exited("killed"), S(20));
    machine.on(Event::Tick, S(30));
    machine.on(Event::Seeded(3), S(31));
    assert_eq!(machine.on(refused(), S(35)), [Effect::Seed { avoid: None, restore: true }]);
    machine.on(Event::Seeded(3), S(36));
    assert_eq!(machine.on(refused(), S(40)), [Effect::Doctor]);
    assert_eq!(machine.on(Event::Doctored, S(50)), [Effect::Seed { avoid: None, restore: false }]);
    machine.on(Event::Seeded(3), S(51));
    assert_eq!(machine.on(refused(), S(55)), []);
    assert_eq!(machine.state(), State::ConfigInvalid);
    assert!(machine.reason().contains("Config invalid"));
    assert_eq!(machine.on(Event::Tick, S(355)).len(), 1);
}

#[test]
fn slow_is_not_dead_but_frozen_is() {
    let mut machine = ready(0);
    machine.on(Event::Health(Health::Mute), S(20));
    assert_eq!(machine.state(), State::Degraded);
    for second in 20..200 {
        assert_eq!(machine.on(Event::Looked { stopped: false, cpu_ticks: second }, S(second)), [], "it uses its share");
    }
    for second in 200..260 {
        assert_eq!(machine.on(Event::Looked { stopped: false, cpu_ticks: 199 }, S(second)), []);
    }
    assert_eq!(machine.on(Event::Looked { stopped: false, cpu_ticks: 199 }, S(260)), [Effect::Kill]);
    assert_eq!(machine.on(exited("killed"), S(261)), [Effect::Seed { avoid: None, restore: false }]);
}

#[test]
fn a_stopped_process_is_replaced_after_a_minute_even_without_a_daemon() {
    let mut machine = running(0);
    assert_eq!(machine.on(Event::Looked { stopped: true, cpu_ticks: 5 }, S(5)), []);
    assert_eq!(machine.on(Event::Looked { stopped: false, cpu_ticks: 5 }, S(50)), [], "it was continued");
    assert_eq!(machine.on(Event::Looked { stopped: true, cpu_ticks: 5 }, S(60)), []);
    assert_eq!(machine.on(Event::Looked { stopped: true, cpu_ticks: 5 }, S(119)), []);
    assert_eq!(machine.on(Event::Looked { stopped: true, cpu_ticks: 5 }, S(120)), [Effect::Kill]);
}

#[test]
fn stopping_says_goodbye_then_term_then_kill_inside_the_budget() {
    let mut machine = ready(0);
    assert_eq!(machine.on(Event::Stop(Then::Exit, S(4)), S(20)), [Effect::Goodbye(S(1))]);
    assert_eq!(machine.on(Event::Tick, S(21)), [Effect::Term]);
    assert_eq!(machine.on(Event::GoodbyeSaid, S(21)), [], "only one TERM");
    assert_eq!(machine.due(), Some(S(20) + Duration::from_millis(3200)));
    assert_eq!(machine.on(Event::Tick, S(24)), [Effect::Kill]);
    assert_eq!(machine.on(exited("killed"), S(24)), [Effect::Exit]);
}

#[test]
fn a_stronger_wish_replaces_a_weaker_one_while_draining() {
    let mut machine = ready(0);
    machine.on(Event::Stop(Then::Restart, S(25)), S(20));
    machine.on(Event::Stop(Then::Exit, S(4)), S(21));
    assert!(machine.due().unwrap() <= S(25));
    machine.on(Event::GoodbyeSaid, S(21));
    assert_eq!(machine.on(exited("0"), S(22)), [Effect::Exit]);
}

fn event() -> impl Strategy<Value = Event> {
    let then = prop_oneof![Just(Then::Restart), Just(Then::Stay), Just(Then::Sleep), Just(Then::Exit)];
    let health = prop_oneof![Just(Health::Answers), Just(Health::Mute), Just(Health::Unknown)];
    prop_oneof![
        Just(Event::Start),
        (then, 1..30u64).prop_map(|(then, s)| Event::Stop(then, S(s))),
        (0..4u64).prop_map(Event::Seeded),
        any::<bool>().prop_map(|config_class| Event::Exited { config_class, why: "x".to_owned() }),
        health.prop_map(Event::Health),
        (any::<bool>(), 0..3u64).prop_map(|(stopped, cpu_ticks)| Event::Looked { stopped, cpu_ticks }),
        Just(Event::GoodbyeSaid),
        Just(Event::Doctored),
        Just(Event::Tick),
    ]
}

proptest! {
    /// Whatever happens: never two processes, no signal to nobody, and a stop always ends.
    #[test]
    fn never_two_gateways_and_every_stop_ends(events in prop::collection::vec((event(), 0..90u64), 1..120)) {
        let mut machine = Machine::new(3);
        let (mut alive, mut ended, mut now) = (false, false, S(0));
        for (event, pause) in events {
            now += S(pause);
            // What the real world cannot tell of a process that is not there is not told here either.
            let impossible = matches!(event, Event::Exited { .. } | Event::Seeded(_) | Event::Looked { .. }) && !alive;
            if impossible || ended {
                continue;
            }
            alive &= !matches!(event, Event::Exited { .. });
            for effect in machine.on(event, now) {
                match effect {
                    Effect::Seed { .. } => {
                        prop_assert!(!alive, "a second gateway");
                        alive = true;
                    }
                    Effect::Term | Effect::Kill => prop_assert!(alive, "a signal to nobody"),
                    Effect::Exit => ended = true,
                    _ => {}
                }
            }
            prop_assert_eq!(machine.state().runs(), alive, "{:?}", machine.state());
        }
        if !ended {
            let mut effects = machine.on(Event::Stop(Then::Exit, S(4)), now);
            for _ in 0..10 {
                now += S(1);
                effects.extend(machine.on(Event::Tick, now));
            }
            if alive {
                prop_assert!(effects.contains(&Effect::Kill));
                effects.extend(machine.on(exited("killed"), now));
            }
            prop_assert!(effects.contains(&Effect::Exit));
        }
    }
}
