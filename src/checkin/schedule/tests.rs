use super::*;
use proptest::prelude::*;

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// The middle of every jitter.
const MIDDLE: u64 = 1 << 63;

/// A small generator, so that every run is the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Begun, and taken at once, with the default interval.
fn sent(schedule: &mut Schedule, at: Duration) {
    schedule.begin(at);
    schedule.sent(300, MIDDLE);
}

#[test]
fn a_change_after_quiet_time_leaves_almost_at_once() {
    let mut schedule = Schedule::new(Mode::Interval, S(0));
    assert_eq!(schedule.due(), None, "nothing to say");
    schedule.changed(S(0));
    schedule.changed(MS(200));
    assert_eq!(schedule.due(), Some(COALESCE));
    sent(&mut schedule, COALESCE);
    assert_eq!(schedule.due(), Some(COALESCE + S(300)));
    schedule.changed(S(100));
    assert_eq!(schedule.due(), Some(S(100) + COALESCE));
}

#[test]
fn one_is_under_way_and_what_comes_meanwhile_follows_together() {
    let mut schedule = Schedule::new(Mode::Interval, S(0));
    schedule.changed(S(0));
    schedule.begin(S(1));
    schedule.changed(MS(1100));
    schedule.changed(MS(2500));
    assert_eq!(schedule.due(), None);
    schedule.sent(300, MIDDLE);
    assert_eq!(schedule.due(), Some(S(3)));
}

#[test]
fn after_a_burst_six_a_minute() {
    let mut schedule = Schedule::new(Mode::Interval, S(0));
    let mut times = Vec::new();
    let mut now = S(0);
    while now < S(600) {
        schedule.changed(now);
        now = now.max(schedule.due().unwrap());
        sent(&mut schedule, now);
        times.push(now);
    }
    let within = |from: Duration, span: Duration| times.iter().filter(|t| (from..from + span).contains(*t)).count();
    assert!(within(S(0), S(60)) <= 12 && within(S(0), S(60)) >= 10, "{times:?}");
    assert!((60..540).all(|from| within(S(from), S(60)) <= 6), "{times:?}");
}

#[test]
fn the_registry_sets_the_pace_within_bounds() {
    for (asked, period) in [(0, 15), (15, 15), (900, 900), (3601, 3600), (u64::MAX, 3600)] {
        let mut schedule = Schedule::new(Mode::Interval, S(0));
        schedule.changed(S(0));
        schedule.begin(S(1));
        schedule.sent(asked, MIDDLE);
        assert_eq!(schedule.due(), Some(S(1 + period.min(300))), "{asked}: not after what was promised before");
        assert_eq!(schedule.begin(S(301)), Some((period * 5).div_ceil(4)), "{asked}");
        schedule.sent(asked, MIDDLE);
        assert_eq!(schedule.due(), Some(S(301 + period)), "{asked}");
    }
}

#[test]
fn attention_that_nobody_gives_does_not_keep_a_machine_awake() {
    let mut schedule = Schedule::new(Mode::Interval, S(0));
    let mut gaps = Vec::new();
    let mut before = S(0);
    schedule.changed(S(0));
    for _ in 0..60 {
        let now = schedule.due().unwrap();
        gaps.push(now.saturating_sub(before));
        before = now;
        schedule.attention(true);
        let promised = S(schedule.begin(now).unwrap());
        schedule.sent(300, u64::MAX);
        assert!(schedule.due().unwrap() <= now + promised, "kept at {now:?}");
    }
    let slow = gaps.iter().position(|gap| *gap > S(75)).unwrap();
    let fast: Duration = gaps[..slow].iter().sum();
    assert!((S(1700)..=S(1900)).contains(&fast), "{fast:?}");
    assert!(gaps[slow..].iter().all(|gap| *gap > S(200)));
    // It is over, and there is another.
    schedule.attention(false);
    schedule.attention(true);
    assert!(schedule.due().unwrap() <= before + S(75));
}

#[test]
fn attention_brings_the_next_one_forward_and_ends_by_itself() {
    let mut schedule = Schedule::new(Mode::Interval, S(0));
    schedule.changed(S(0));
    assert_eq!(schedule.begin(S(10)), Some(375));
    schedule.sent(300, MIDDLE);
    schedule.attention(true);
    assert_eq!(schedule.due(), Some(S(70)));
    assert_eq!(schedule.begin(S(70)), Some(75));
    schedule.sent(300, MIDDLE);
    assert_eq!(schedule.due(), Some(S(130)));
    schedule.attention(false);
    sent(&mut schedule, S(130));
    assert_eq!(schedule.due(), Some(S(430)));
}

#[test]
fn quiet_says_nothing_when_nothing_happens_but_does_not_give_up() {
    let mut schedule = Schedule::new(Mode::Quiet, S(0));
    schedule.changed(S(0));
    schedule.attention(true);
    assert_eq!(schedule.begin(S(1)), None);
    schedule.sent(300, MIDDLE);
    assert_eq!(schedule.due(), None);
    schedule.attention(false);
    schedule.attention(true);
    assert_eq!(schedule.due(), None);
    schedule.changed(S(1000));
    schedule.begin(S(1001));
    schedule.failed(S(1002), Failed::Network, MIDDLE);
    assert_eq!(schedule.due(), Some(S(1003)), "what was not taken is said again");
}

#[test]
fn pauses_grow_and_a_change_does_not_shorten_them() {
    let mut schedule = Schedule::new(Mode::Interval, S(0));
    schedule.changed(S(0));
    let mut now = S(1);
    for most in [2u64, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600] {
        now = now.max(schedule.due().unwrap());
        schedule.begin(now);
        schedule.failed(now, Failed::Status, u64::MAX);
        schedule.changed(now);
        let pause = schedule.due().unwrap().saturating_sub(now);
        assert!(pause <= S(most) + REFILL && pause + MS(1) >= S(most), "{most}: {pause:?}");
    }
    sent(&mut schedule, now + S(600));
    schedule.begin(now + S(900));
    schedule.failed(now + S(900), Failed::Network, u64::MAX);
    assert!(schedule.due().unwrap() <= now + S(903), "it begins anew after a success");
}

#[test]
fn the_registry_is_left_alone_when_it_asks() {
    let pause = |why, random| {
        let mut schedule = Schedule::new(Mode::Interval, S(0));
        schedule.changed(S(0));
        schedule.begin(S(1));
        schedule.failed(S(1), why, random);
        schedule.due().unwrap().saturating_sub(S(1))
    };
    assert_eq!(pause(Failed::RetryAfter(S(120)), 0), S(120));
    assert!(pause(Failed::RetryAfter(S(120)), u64::MAX) <= S(150));
    assert!(pause(Failed::RetryAfter(S(u64::MAX / 8)), u64::MAX) <= S(4500));
    assert!(pause(Failed::RetryAfter(S(0)), u64::MAX) > S(1), "it means: as usual");
}

#[test]
fn a_refused_credential_is_no_storm() {
    let mut schedule = Schedule::new(Mode::Interval, S(0));
    let mut random = Random(7);
    let (mut now, mut tries) = (S(0), 0);
    schedule.changed(now);
    loop {
        schedule.changed(now);
        let next = now.max(schedule.due().unwrap());
        let pause = next.saturating_sub(now);
        assert!(tries == 0 || (S(60)..=S(610)).contains(&pause), "{pause:?}");
        if next > S(24 * 3600) {
            break;
        }
        now = next;
        tries += 1;
        schedule.begin(now);
        schedule.failed(now, Failed::Unauthorised, random.next());
    }
    assert!((144..320).contains(&tries), "{tries} a day");
}

#[test]
fn after_a_suspend_the_state_is_told_at_once() {
    let mut schedule = Schedule::new(Mode::Interval, S(0));
    schedule.changed(S(0));
    for n in 0..12 {
        schedule.begin(S(n * 700));
        schedule.failed(S(n * 700), Failed::Unauthorised, u64::MAX);
    }
    let now = S(11 * 700 + 1);
    schedule.resumed(now);
    assert!(schedule.due().unwrap() <= now);
    schedule.begin(now);
    schedule.failed(now, Failed::Network, u64::MAX);
    assert!(schedule.due().unwrap() <= now + S(12), "pauses begin anew");
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Changed,
    Attention(bool),
    Resumed,
    Sent(u64),
    Failed,
    Refused,
    LeftAlone(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u64..2_000_000).prop_map(Step::Wait),
        Just(Step::Changed),
        any::<bool>().prop_map(Step::Attention),
        Just(Step::Resumed),
        any::<u64>().prop_map(Step::Sent),
        Just(Step::Failed),
        Just(Step::Refused),
        any::<u64>().prop_map(Step::LeftAlone),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    /// Whatever happens: never two at once, never more than the bucket holds, and in interval mode always a next one
    /// within the longest pause there is, and within what the last one promised if that was taken.
    #[test]
    fn rules_hold_whatever_happens(steps in steps(), random in any::<u64>(), quiet in any::<bool>()) {
        let mode = if quiet { Mode::Quiet } else { Mode::Interval };
        let (mut schedule, mut random) = (Schedule::new(mode, S(0)), Random(random));
        let (mut now, mut flying, mut left, mut resumes) = (S(0), false, Vec::new(), 0usize);
        let (mut promised, mut kept) = (None, None);
        schedule.changed(now);
        for step in steps {
            match step {
                Step::Wait(ms) => now += MS(ms),
                Step::Changed => schedule.changed(now),
                Step::Attention(on) => schedule.attention(on),
                Step::Resumed => { schedule.resumed(now); resumes += 1; }
                Step::Sent(next_s) if flying => {
                    schedule.sent(next_s, random.next());
                    (flying, kept) = (false, promised);
                }
                Step::Failed if flying => { schedule.failed(now, Failed::Network, random.next()); flying = false; }
                Step::Refused if flying => { schedule.failed(now, Failed::Unauthorised, random.next()); flying = false; }
                Step::LeftAlone(s) if flying => {
                    schedule.failed(now, Failed::RetryAfter(S(s)), random.next());
                    flying = false;
                }
                _ => {}
            }
            prop_assert_eq!(schedule.due().is_none() && !quiet, flying && !quiet);
            if let Some(due) = schedule.due() {
                prop_assert!(due <= now + S(4510), "{:?} at {:?}", due, now);
                prop_assert!(kept.is_none_or(|kept| due <= kept), "{:?} was promised by {:?}", due, kept);
                if due <= now {
                    (promised, kept) = (schedule.begin(now).map(|s| now + S(s)), None);
                    left.push(now);
                    flying = true;
                    prop_assert!(schedule.due().is_none());
                }
            }
        }
        // Every resume may add one.
        for (n, first) in left.iter().enumerate() {
            let within = left[n..].iter().take_while(|t| **t < *first + S(60)).count();
            prop_assert!(within <= 13 + resumes, "{}", within);
        }
    }
}
