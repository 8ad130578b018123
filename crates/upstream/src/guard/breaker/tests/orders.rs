//! Checks the breaker's invariants under random orders of events.

use proptest::prelude::*;

use super::*;

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

/// The state that the test tracks itself: admissions in use, the current probe, and the number of
/// results since the breaker last closed.
struct Bystander {
    scene: SimulatedBreaker,
    out: Vec<BreakerAdmission>,
    probe: Option<(u64, Instant)>,
    verdicts: u32,
}

impl Bystander {
    fn take(&mut self, which: usize) -> Option<BreakerAdmission> {
        let count = self.out.len();
        (count > 0).then(|| self.out.swap_remove(which % count))
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let before = self.scene.breaker.state();
        match *step {
            Step::Wait(millis) => self.scene.now += MS * u32::try_from(millis).unwrap(),
            Step::Admit => match self.scene.admit() {
                BreakerDecision::Admit(admission) => self.out.push(admission),
                BreakerDecision::Probe(admission) => {
                    let overdue = |sent| self.scene.now >= sent + SETTINGS.probe_timeout;
                    prop_assert!(self.probe.is_none_or(|(_, sent)| overdue(sent)));
                    self.probe = Some((admission.round, self.scene.now));
                    self.out.push(admission);
                }
                BreakerDecision::Refuse { until } => prop_assert!(until > self.scene.now),
            },
            Step::Record(which, ok) => {
                if let Some(admission) = self.take(which) {
                    self.probe = self.probe.filter(|&(probe, _)| probe != admission.round);
                    self.verdicts += 1;
                    self.scene.record(admission, ok);
                }
            }
            Step::Lose(which) => {
                if let Some(admission) = self.take(which) {
                    self.probe = self.probe.filter(|&(probe, _)| probe != admission.round);
                    self.scene
                        .breaker
                        .record_abandoned(admission, self.scene.now);
                }
            }
            Step::Return(which) => {
                if let Some(admission) = self.take(which) {
                    self.probe = self.probe.filter(|&(probe, _)| probe != admission.round);
                    self.scene.breaker.release(admission, self.scene.now);
                }
            }
        }
        match (before, self.scene.breaker.state()) {
            (State::Closed, State::Open { .. }) => {
                prop_assert!(self.verdicts >= SETTINGS.failed_urls_min);
            }
            (State::Open { .. } | State::Probing { .. }, State::Closed) => {
                self.verdicts = 0;
                self.probe = None;
            }
            _ => {}
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn at_most_one_probe_and_the_breaker_always_recovers(steps in steps()) {
        let scene = SimulatedBreaker::start();
        let mut bystander = Bystander { scene, out: Vec::new(), probe: None, verdicts: 0 };
        for step in &steps {
            bystander.step(step)?;
        }
        let mut scene = bystander.scene;
        scene.wait(SETTINGS.probe_after_max.max(SETTINGS.probe_timeout));
        match scene.admit() {
            BreakerDecision::Admit(admission) | BreakerDecision::Probe(admission) => scene.record(admission, true),
            BreakerDecision::Refuse { .. } => prop_assert!(false, "no request is ever let through again"),
        }
        prop_assert_eq!(scene.breaker.state(), State::Closed);
    }
}
