//! What a unit says by itself: docs/call.md has the list. The defaults are made by scripts/make-prompts. Pure.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::media::{
    sound::Sound,
    wav::{self, Fault},
};

/// A thing that a unit says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prompt {
    /// The press arrived.
    Pressed,
    /// An operator's page rings, or headquarters' broker has it.
    Reached,
    /// Neither, yet.
    Waiting,
    /// The floor is taken.
    Answered,
    /// The call is held.
    Hold,
    /// The operator's side is lost.
    Lost,
    /// Hung up.
    Ended,
}

impl Prompt {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Pressed, Self::Reached, Self::Waiting, Self::Answered, Self::Hold, Self::Lost, Self::Ended];

    /// Its name in the config and in addresses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pressed => "pressed",
            Self::Reached => "reached",
            Self::Waiting => "waiting",
            Self::Answered => "answered",
            Self::Hold => "hold",
            Self::Lost => "lost",
            Self::Ended => "ended",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|prompt| prompt.name() == name)
    }

    const fn default_file(self) -> &'static [u8] {
        match self {
            Self::Pressed => include_bytes!("../prompts/pressed.wav"),
            Self::Reached => include_bytes!("../prompts/reached.wav"),
            Self::Waiting => include_bytes!("../prompts/waiting.wav"),
            Self::Answered => include_bytes!("../prompts/answered.wav"),
            Self::Hold => include_bytes!("../prompts/hold.wav"),
            Self::Lost => include_bytes!("../prompts/lost.wav"),
            Self::Ended => include_bytes!("../prompts/ended.wav"),
        }
    }
}

impl fmt::Display for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// All prompts: as files, for a unit that plays them itself, and as samples.
#[derive(Debug, Clone)]
pub struct Prompts([(Bytes, Arc<Sound>); 7]);

impl Default for Prompts {
    /// Those that come with the gateway.
    fn default() -> Self {
        Self(Prompt::ALL.map(|prompt| {
            let file = Bytes::from_static(prompt.default_file());
            // Whether they can be read is tested below.
            let sound = wav::read(&file).unwrap_or(Sound { rate: 8_000, samples: Vec::new() });
            (file, Arc::new(sound))
        }))
    }
}

impl Prompts {
    /// The same with another file for one of them.
    ///
    /// # Errors
    /// The file's [`Fault`].
    pub fn with(mut self, prompt: Prompt, file: Bytes) -> Result<Self, Fault> {
        let sound = Arc::new(wav::read(&file)?);
        self.0[prompt as usize] = (file, sound);
        Ok(self)
    }

    /// A prompt as a WAV file.
    pub fn file(&self, prompt: Prompt) -> &Bytes {
        &self.0[prompt as usize].0
    }

    /// A prompt as samples.
    pub fn sound(&self, prompt: Prompt) -> &Arc<Sound> {
        &self.0[prompt as usize].1
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::media::sound::level;

    #[test]
    fn the_defaults_are_there_as_loud_as_each_other_and_not_long() {
        let prompts = Prompts::default();
        for prompt in Prompt::ALL {
            let sound = prompts.sound(prompt);
            let length = sound.length();
            assert!(length > Duration::from_millis(400) && length < Duration::from_secs(10), "{prompt}: {length:?}");
            // Speech has pauses, so its loud parts are a little louder.
            assert!((-17.0..-15.0).contains(&level(&sound.samples)), "{prompt}: {} dBFS", level(&sound.samples));
            assert_eq!((Prompt::named(prompt.name()), Prompt::ALL[prompt as usize]), (Some(prompt), prompt));
        }
        assert!(Prompt::ALL.iter().map(|p| prompts.file(*p).len()).sum::<usize>() < 400_000);
    }

    #[test]
    fn a_file_of_a_districts_own_takes_the_place_of_one_default() {
        let defaults = Prompts::default();
        let file = defaults.file(Prompt::Answered).clone();
        let own = defaults.clone().with(Prompt::Hold, file.clone()).unwrap();
        assert_eq!((own.file(Prompt::Hold), own.file(Prompt::Lost)), (&file, defaults.file(Prompt::Lost)));
        assert!(defaults.with(Prompt::Hold, Bytes::from_static(b"MP3")).is_err());
    }
}
