//! Does the breaker open, probe and close when it should, and only then?

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SETTINGS: Settings = Settings {
    error_share: 0.1,
    window: Duration::from_secs(10),
    requests_min: 20,
    probe_after: Duration::from_millis(500),
    probe_after_max: Duration::from_secs(2),
    probe_patience: Duration::from_secs(3),
};

/// A breaker and the time it is told.
struct Scene {
    breaker: Breaker,
    now: Instant,
}

impl Scene {
    fn start() -> Scene {
        let now = Instant::now();
        let breaker = Breaker::new(SETTINGS, now);
        Scene { breaker, now }
    }

    fn opened() -> Scene {
        let mut scene = Scene::start();
        scene.ask(20, false);
        assert!(matches!(scene.breaker.state(), State::Open { .. }));
        scene
    }

    fn pass(&mut self) -> Pass {
        match self.breaker.admit(self.now) {
            Admit::Yes(pass) => pass,
            other => panic!("not let through: {other:?}"),
        }
    }

    fn probe(&mut self) -> Pass {
        match self.breaker.admit(self.now) {
            Admit::Probe(pass) => pass,
            other => panic!("no probe: {other:?}"),
        }
    }

    fn ask(&mut self, times: usize, ok: bool) {
        for _ in 0..times {
            let pass = self.pass();
            self.record(pass, ok);
        }
    }

    fn record(&mut self, pass: Pass, ok: bool) {
        self.breaker.record(pass, self.now, ok);
    }

    /// How long requests are refused from now on.
    fn refused_for(&mut self) -> Duration {
        match self.breaker.admit(self.now) {
            Admit::No { until } => until - self.now,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn it_opens_at_the_share_and_not_below() {
    let mut scene = Scene::start();
    scene.ask(90, true);
    scene.ask(9, false);
    assert_eq!(scene.breaker.state(), State::Closed);
    scene.ask(1, false);
    assert_eq!(scene.breaker.state().as_str(), "open");
    assert_eq!(scene.breaker.opened_total(), 1);
}

#[test]
fn few_requests_say_nothing_and_a_success_never_opens() {
    let mut scene = Scene::start();
    scene.ask(19, false);
    scene.ask(1, true);
    assert_eq!(scene.breaker.state(), State::Closed);
    scene.ask(1, false);
    assert_eq!(scene.refused_for(), SETTINGS.probe_after);
}

#[test]
fn errors_long_ago_are_forgotten() {
    let mut scene = Scene::start();
    scene.ask(19, false);
    scene.wait(SETTINGS.window);
    scene.ask(19, false);
    assert_eq!(scene.breaker.state(), State::Closed);
}

#[test]
fn one_probe_goes_and_its_success_closes() {
    let mut scene = Scene::opened();
    scene.wait(SETTINGS.probe_after.saturating_sub(MS));
    assert_eq!(scene.refused_for(), MS);
    scene.wait(MS);
    assert_eq!(scene.breaker.outlook(scene.now), Outlook::ProbeDue);
    let probe = scene.probe();
    assert_eq!(scene.refused_for(), SETTINGS.probe_patience);
    scene.record(probe, true);
    assert_eq!(scene.breaker.state(), State::Closed);
    scene.ask(10, true);
    scene.ask(1, false);
    assert_eq!(
        scene.breaker.state(),
        State::Closed,
        "the window was kept, or one in eleven is too many"
    );
}

#[test]
fn after_a_probe_one_early_error_opens_again_and_later_few_say_nothing() {
    for (after, open) in [(MS, true), (SETTINGS.window, false)] {
        let mut scene = Scene::opened();
        scene.wait(SETTINGS.probe_after);
        let probe = scene.probe();
        scene.record(probe, true);
        scene.wait(after);
        scene.ask(1, false);
        assert_eq!(scene.breaker.state() != State::Closed, open, "{after:?}");
    }
}

#[test]
fn each_probe_that_fails_doubles_the_wait_up_to_its_bound() {
    let mut scene = Scene::opened();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let wait = scene.refused_for();
        waits.push(wait.as_millis());
        scene.wait(wait);
        let probe = scene.probe();
        scene.record(probe, false);
    }
    assert_eq!(waits, [500, 1000, 2000, 2000]);
    assert_eq!(scene.breaker.opened_total(), 1);
}

#[test]
fn an_origin_that_relapses_waits_longer_and_one_that_held_does_not() {
    let mut scene = Scene::opened();
    let mut relapse = |after| {
        let wait = scene.refused_for();
        scene.wait(wait);
        let probe = scene.probe();
        scene.record(probe, true);
        scene.wait(after);
        while scene.breaker.state() == State::Closed {
            scene.ask(1, false);
        }
        scene.refused_for()
    };
    assert_eq!(relapse(MS), SETTINGS.probe_after * 2);
    assert_eq!(relapse(SETTINGS.window), SETTINGS.probe_after);
}

#[test]
fn probes_that_are_lost_do_not_follow_back_to_back() {
    let mut scene = Scene::opened();
    scene.wait(SETTINGS.probe_after);
    for _ in 0..3 {
        let probe = scene.probe();
        scene.breaker.lost(probe, scene.now);
        assert_eq!(scene.refused_for(), SETTINGS.probe_after, "and no longer");
        scene.wait(SETTINGS.probe_after);
    }
    let probe = scene.probe();
    scene.record(probe, true);
    assert_eq!(scene.breaker.state(), State::Closed);
}

#[test]
fn not_even_where_the_wait_for_a_probe_is_next_to_nothing() {
    let mut scene = Scene::start();
    scene.breaker.settings.probe_after = Duration::from_nanos(1);
    scene.ask(20, false);
    scene.wait(MS);
    let probe = scene.probe();
    scene.breaker.lost(probe, scene.now);
    assert_eq!(scene.refused_for(), LOST_WAIT_MIN);
}

#[test]
fn a_probe_that_is_returned_gives_its_place_to_the_next_at_once() {
    let mut scene = Scene::opened();
    scene.wait(SETTINGS.probe_after);
    let probe = scene.probe();
    scene.breaker.returned(probe, scene.now);
    let probe = scene.probe();
    scene.record(probe, true);
    assert_eq!(scene.breaker.state(), State::Closed);
}

#[test]
fn what_was_sent_before_the_opening_says_nothing() {
    let mut scene = Scene::start();
    let stragglers = [scene.pass(), scene.pass(), scene.pass(), scene.pass()];
    let [good, bad, lost, late] = stragglers;
    scene.ask(20, false);
    scene.wait(SETTINGS.probe_after);
    let probe = scene.probe();
    let probing = scene.breaker.state();
    scene.record(good, true);
    scene.record(bad, false);
    scene.breaker.lost(lost, scene.now);
    assert_eq!(scene.breaker.state(), probing);
    scene.record(probe, true);
    scene.ask(19, true);
    scene.record(late, false);
    assert_eq!(scene.breaker.state(), State::Closed);
}

#[test]
fn a_probe_that_takes_too_long_holds_nobody_up_but_its_success_counts() {
    let mut scene = Scene::opened();
    scene.wait(SETTINGS.probe_after);
    let slow = scene.probe();
    let slower = {
        scene.wait(SETTINGS.probe_patience);
        scene.probe()
    };
    scene.wait(SETTINGS.probe_patience);
    let third = scene.probe();
    scene.record(slow, false);
    assert_eq!(scene.breaker.state().as_str(), "probing");
    scene.record(slower, true);
    assert_eq!(scene.breaker.state(), State::Closed);
    scene.record(third, false);
    scene.ask(18, true);
    scene.ask(1, false);
    assert_eq!(scene.breaker.state(), State::Closed);
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Admit,
    Record(usize, bool),
    Lose(usize),
    Return(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0_u64..1_500).prop_map(Step::Wait),
        8 => Just(Step::Admit),
        6 => (0_usize..64, proptest::bool::weighted(0.3))
            .prop_map(|(which, ok)| Step::Record(which, ok)),
        1 => (0_usize..64).prop_map(Step::Lose),
        1 => (0_usize..64).prop_map(Step::Return),
    ];
    proptest::collection::vec(step, 0..400)
}

/// What a bystander knows: the passes that are out, the probe that holds the place, and how many
/// verdicts came since the breaker last closed.
struct Bystander {
    scene: Scene,
    out: Vec<Pass>,
    probe: Option<(u64, Instant)>,
    verdicts: u32,
    closed_at: Option<Instant>,
}

impl Bystander {
    fn take(&mut self, which: usize) -> Option<Pass> {
        let count = self.out.len();
        (count > 0).then(|| self.out.swap_remove(which % count))
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let before = self.scene.breaker.state();
        match *step {
            Step::Wait(millis) => self.scene.now += MS * u32::try_from(millis).unwrap(),
            Step::Admit => match self.scene.breaker.admit(self.scene.now) {
                Admit::Yes(pass) => self.out.push(pass),
                Admit::Probe(pass) => {
                    let overdue = |sent| self.scene.now >= sent + SETTINGS.probe_patience;
                    prop_assert!(self.probe.is_none_or(|(_, sent)| overdue(sent)));
                    self.probe = Some((pass.0, self.scene.now));
                    self.out.push(pass);
                }
                Admit::No { until } => prop_assert!(until > self.scene.now),
            },
            Step::Record(which, ok) => {
                if let Some(pass) = self.take(which) {
                    self.probe = self.probe.filter(|&(probe, _)| probe != pass.0);
                    self.verdicts += 1;
                    self.scene.record(pass, ok);
                }
            }
            Step::Lose(which) => {
                if let Some(pass) = self.take(which) {
                    self.probe = self.probe.filter(|&(probe, _)| probe != pass.0);
                    self.scene.breaker.lost(pass, self.scene.now);
                }
            }
            Step::Return(which) => {
                if let Some(pass) = self.take(which) {
                    self.probe = self.probe.filter(|&(probe, _)| probe != pass.0);
                    self.scene.breaker.returned(pass, self.scene.now);
                }
            }
        }
        match (before, self.scene.breaker.state()) {
            (State::Closed, State::Open { .. }) => {
                let now = self.scene.now;
                let on_trial = self.closed_at.is_some_and(|at| now < at + SETTINGS.window);
                prop_assert!(on_trial || self.verdicts >= SETTINGS.requests_min);
            }
            (State::Open { .. } | State::Probing { .. }, State::Closed) => {
                self.verdicts = 0;
                self.closed_at = Some(self.scene.now);
                self.probe = None;
            }
            _ => {}
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn one_probe_at_a_time_and_one_in_the_end(steps in steps()) {
        let scene = Scene::start();
        let mut bystander = Bystander { scene, out: Vec::new(), probe: None, verdicts: 0, closed_at: None };
        for step in &steps {
            bystander.step(step)?;
        }
        let mut scene = bystander.scene;
        scene.wait(SETTINGS.probe_after_max.max(SETTINGS.probe_patience));
        match scene.breaker.admit(scene.now) {
            Admit::Yes(pass) | Admit::Probe(pass) => scene.record(pass, true),
            Admit::No { .. } => prop_assert!(false, "nobody is ever let through again"),
        }
        prop_assert_eq!(scene.breaker.state(), State::Closed);
    }
}
