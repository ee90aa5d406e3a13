//! The actions that a session asks for, and how they are drawn.

/// Number of steps of a session, each with one action. The draw of three actions is no defence:
/// there are only 34 sequences. Order, reaction time and continuity defend a session.
pub const STEPS: usize = 3;

/// An action in front of the camera. Left and right are the person's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Turn the head to the left and back.
    TurnLeft,
    /// Turn the head to the right and back.
    TurnRight,
    /// Close both eyes for a moment, twice.
    Blink,
    /// Look down and up again.
    Nod,
    /// Open the mouth and close it.
    OpenMouth,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 5] =
        [Self::TurnLeft, Self::TurnRight, Self::Blink, Self::Nod, Self::OpenMouth];

    /// Returns the name used in tokens.
    pub fn name(self) -> &'static str {
        match self {
            Self::TurnLeft => "turn_left",
            Self::TurnRight => "turn_right",
            Self::Blink => "blink",
            Self::Nod => "nod",
            Self::OpenMouth => "open_mouth",
        }
    }

    /// Returns the instruction for the customer.
    pub fn instruction(self) -> &'static str {
        match self {
            Self::TurnLeft => "turn your head to your left, and back",
            Self::TurnRight => "turn your head to your right, and back",
            Self::Blink => "close your eyes for a moment, twice",
            Self::Nod => "lower your chin, and raise it again",
            Self::OpenMouth => "open your mouth wide, and close it",
        }
    }

    /// Parses a [`Self::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    fn is_turn(self) -> bool {
        matches!(self, Self::TurnLeft | Self::TurnRight)
    }
}

/// Maps a number from a cryptographic source to the actions of a session. Every allowed triple is
/// equally likely, except for the last, incomplete round of the 2¹²⁸ numbers.
pub fn draw_actions(random: u128) -> [Action; STEPS] {
    let triples = allowed_triples();
    triples[(random % triples.len() as u128) as usize]
}

/// Returns all triples that contain a turn and a blink and repeat no action immediately.
/// Registrations ask every customer to turn the head and to blink, so both are always drawn. A
/// repeated action could not be told from one long action.
fn allowed_triples() -> Vec<[Action; STEPS]> {
    let mut triples = Vec::new();
    for first in Action::ALL {
        for second in Action::ALL {
            for third in Action::ALL {
                triples.push([first, second, third]);
            }
        }
    }
    triples.retain(is_allowed);
    triples
}

/// Returns true if a session may ask for these actions in this order.
fn is_allowed(actions: &[Action; STEPS]) -> bool {
    let has_turn = actions.iter().any(|action| action.is_turn());
    let repeats = actions.windows(2).any(|pair| pair[0] == pair[1]);
    has_turn && actions.contains(&Action::Blink) && !repeats
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns every triple that a session may ask for.
    pub(in crate::liveness) fn every_triple() -> Vec<[Action; STEPS]> {
        allowed_triples()
    }

    #[test]
    fn every_allowed_triple_is_drawn_equally_often() {
        let triples = allowed_triples();
        let rounds = 3;
        let numbers = 0..(rounds * triples.len()) as u128;
        let drawn: Vec<_> = numbers.map(draw_actions).collect();
        for triple in &triples {
            assert_eq!(drawn.iter().filter(|other| *other == triple).count(), rounds);
        }
    }

    #[test]
    fn names_are_read_back() {
        for action in Action::ALL {
            assert_eq!(Action::from_name(action.name()), Some(action));
        }
        assert_eq!(Action::from_name("turn"), None);
    }

    proptest! {
        #[test]
        fn every_draw_has_a_turn_and_a_blink_and_no_immediate_repeat(random: u128) {
            let actions = draw_actions(random);
            prop_assert!(actions.iter().any(|a| matches!(a, Action::TurnLeft | Action::TurnRight)));
            prop_assert!(actions.contains(&Action::Blink));
            prop_assert!(actions[0] != actions[1] && actions[1] != actions[2]);
        }
    }
}
