//! `chowki press`: presses a button as a device would, over MQTT, and follows it until headquarters has it.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::ValueEnum;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};

use super::{check, demo, exit, output};
use crate::{
    config::{self, Ports},
    district::{
        clock::Mono,
        ids::ButtonId,
        inventory::ButtonCredential,
        press::{Progress, StateMessage},
    },
    host::clock,
};

/// Press a button, as a device would, and follow it until headquarters has it.
///
/// Connects with the button's own password, so it proves what the button could do. The button's real device is
/// disconnected for that moment and comes back by itself; a press that is followed for longer then asks again, less and
/// less often, and the device is disconnected for a moment each time.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki press saddar-01                                    against a running `chowki demo`
  chowki press saddar-01 --config district.toml --kind test
  chowki press saddar-01 --until dispatched --timeout 600 --json

Exit status: 0 followed as far as asked, 1 not in time, 2 the command line is wrong, 66 or 78 as `chowki check`, 73 standard
output cannot be written.")]
pub struct Args {
    /// The button.
    pub button: String,
    /// The gateway's config: its address and the button's password. Without it, the running demo's.
    #[arg(long, short)]
    pub config: Option<PathBuf>,
    /// What the press is about.
    #[arg(long, value_enum, default_value = "panic")]
    pub kind: Kind,
    /// Follow it until this is told. Left out: delivered, or recorded where the gateway has no headquarters.
    #[arg(long, value_enum)]
    pub until: Option<Until>,
    /// Give up after so many seconds.
    #[arg(long, default_value_t = 15, value_parser = seconds)]
    pub timeout: u64,
    /// Print each step as a line of JSON.
    #[arg(long)]
    pub json: bool,
}

fn seconds(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("write a whole number of seconds, 1 or more".into()),
        Ok(seconds) => Ok(seconds),
    }
}

/// What a press is about.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[allow(missing_docs, reason = "they are the words of `district::press::PressKind`")]
pub enum Kind {
    Panic,
    Medical,
    Fire,
    Accident,
    Tamper,
    Test,
}

/// How far a press is followed.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[allow(missing_docs, reason = "they are the words of `district::press::Progress`")]
pub enum Until {
    Recorded,
    Delivered,
    Seen,
    Dispatched,
    Closed,
}

impl Until {
    fn progress(self) -> Progress {
        match self {
            Until::Recorded => Progress::Recorded,
            Until::Delivered => Progress::Delivered,
            Until::Seen => Progress::Seen,
            Until::Dispatched => Progress::Dispatched,
            Until::Closed => Progress::Closed,
        }
    }
}

/// Runs `chowki press`.
pub fn run(args: &Args) -> ExitCode {
    let Some(config) = args.config.clone().or_else(demo::running_config) else {
        eprintln!(
            "chowki press: no demo is running; start `chowki demo` in another terminal, or name a config with --config"
        );
        return ExitCode::from(exit::NO_INPUT);
    };
    let target = match target(&config, args) {
        Ok(target) => target,
        Err(code) => return code,
    };
    let Ok(runtime) = super::runtime() else { return ExitCode::from(exit::FAILED) };
    let mut follower = Follower::new(args, target);
    let limit = Duration::from_secs(args.timeout);
    let followed = runtime.block_on(async { tokio::time::timeout(limit, follower.follow()).await });
    match followed.unwrap_or_else(|_| Err(follower.late(args.timeout))) {
        Ok(()) => follower.say.unwritten.unwrap_or(ExitCode::SUCCESS),
        Err(why) => {
            eprintln!("chowki press: {why}");
            ExitCode::from(exit::FAILED)
        }
    }
}

struct Target {
    button: ButtonId,
    password: String,
    host: String,
    port: u16,
    until: Progress,
    /// Whether the gateway has no headquarters.
    alone: bool,
}

fn target(config: &Path, args: &Args) -> Result<Target, ExitCode> {
    let loaded = config::load(config, Ports::Leave).map_err(|faults| {
        check::show(&faults);
        check::exit_of(&faults)
    })?;
    let refuse = |code: u8, why: String| {
        eprintln!("chowki press: {why}");
        ExitCode::from(code)
    };
    let (button, known) = (&args.button, loaded.inventory.buttons());
    let found = known.iter().find(|b| b.id.as_str() == button).ok_or_else(|| {
        let ids: Vec<_> = known.iter().take(8).map(|b| b.id.as_str()).collect();
        refuse(exit::NO_INPUT, format!("no button {button} in {}; there are {} ...", config.display(), ids.join(", ")))
    })?;
    let ButtonCredential::Password(password) = &found.credential else {
        return Err(refuse(exit::NO_INPUT, format!("{button} proves itself by certificate; press it at its device")));
    };
    let Some(listen) = loaded.config.broker.listen else {
        let why = "this gateway takes buttons by TLS only; press it at its device";
        return Err(refuse(exit::NO_INPUT, why.into()));
    };
    let alone = loaded.config.headquarters.is_none();
    let until = match args.until {
        Some(Until::Delivered) if alone => {
            let why = "nothing is delivered by a gateway without [headquarters]; use --until recorded";
            return Err(refuse(exit::USAGE, why.into()));
        }
        Some(until) => until.progress(),
        None if alone => Progress::Recorded,
        None => Progress::Delivered,
    };
    let host = if listen.ip().is_unspecified() { "127.0.0.1".into() } else { listen.ip().to_string() };
    let (button, password) = (found.id.clone(), password.reveal().to_owned());
    Ok(Target { button, password, host, port: listen.port(), until, alone })
}

/// The device of a button has its connection for so long, at least, before it is asked for again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The pauses double up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long a gateway may take to read our goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// One press, followed over as many connections as it takes. A client id has one connection, so each ends when the
/// button's device comes back; what the device is told meanwhile is not told here. But a press that is sent again under its
/// id is the same press, and is answered with how far it has come.
struct Follower {
    target: Target,
    press: String,
    payload: String,
    say: Say,
    pressed: bool,
    acknowledged: bool,
    interrupted: bool,
    told: Option<StateMessage>,
}

impl Follower {
    fn new(args: &Args, target: Target) -> Self {
        let press = press_id();
        let kind = format!("{:?}", args.kind).to_lowercase();
        Self {
            target,
            payload: serde_json::json!({ "press": press, "at": clock::wall(), "kind": kind }).to_string(),
            press,
            say: Say {
                json: args.json,
                colour: std::io::stdout().is_terminal(),
                began: clock::mono(),
                unwritten: None,
            },
            pressed: false,
            acknowledged: false,
            interrupted: false,
            told: None,
        }
    }

    async fn follow(&mut self) -> Result<(), String> {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(why) = self.connection().await else { return Ok(()) };
            if !self.pressed {
                return Err(format!("{}:{}: {why}", self.target.host, self.target.port));
            }
            self.interrupted = true;
            let detail = format!("the button's device may be back ({why}); asking again in {} s", pause.as_secs());
            self.say.step("interrupted", &detail);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Presses over one connection and follows what is told, as far as asked or until the connection ends.
    async fn connection(&mut self) -> Result<(), String> {
        let id = self.target.button.as_str();
        let mut options = MqttOptions::new(id, &self.target.host, self.target.port);
        options.set_credentials(id, &self.target.password).set_keep_alive(Duration::from_secs(10));
        // A clean one would end the device's own session, and with it what the device has subscribed to.
        options.set_clean_session(false);
        let (press_topic, state_topic) = (format!("buttons/{id}/press"), format!("buttons/{id}/state"));
        let (client, mut link) = AsyncClient::new(options, 16);
        let text = |e: rumqttc::ClientError| e.to_string();
        client.subscribe(&state_topic, QoS::AtLeastOnce).await.map_err(text)?;
        loop {
            match link.poll().await.map_err(|e| super::chain(&e))? {
                Event::Incoming(Packet::SubAck(_)) => {
                    if !self.pressed {
                        self.pressed = true;
                        self.say.step("pressed", &self.press);
                    }
                    let payload = self.payload.clone();
                    client.publish(&press_topic, QoS::AtLeastOnce, false, payload).await.map_err(text)?;
                }
                Event::Incoming(Packet::PubAck(_)) if !self.acknowledged => {
                    self.acknowledged = true;
                    self.say.step("acknowledged", "the gateway has it on disk");
                }
                Event::Incoming(Packet::Publish(message)) => {
                    self.hear(&message.payload);
                    if self.told.as_ref().is_some_and(|told| told.state >= self.target.until) {
                        let _ = client.disconnect().await;
                        let _ = tokio::time::timeout(GOODBYE, goodbye(&mut link)).await;
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
    }

    /// Takes note of a state of this press that is further than those before.
    fn hear(&mut self, payload: &[u8]) {
        let Ok(state) = serde_json::from_slice::<StateMessage>(payload) else { return };
        let this_press = state.press.as_ref().is_some_and(|press| press.as_str() == self.press);
        // The steps of headquarters are those of the incident, whichever of its presses they are told with.
        let this_incident = self.told.as_ref().is_some_and(|told| told.incident == state.incident);
        let ours = this_press || (this_incident && state.state > Progress::Delivered);
        if ours && self.told.as_ref().is_none_or(|told| told.state < state.state) {
            self.say.step(&word(state.state), &format!("incident {}", state.incident));
            self.told = Some(state);
        }
    }

    /// What is said when the time is over.
    fn late(&self, seconds: u64) -> String {
        let until = word(self.target.until);
        let Some(told) = &self.told else {
            let so_far = if self.acknowledged { "the gateway has it on disk" } else { "the gateway has not answered" };
            return format!("not {until} within {seconds} s; {so_far}");
        };
        let (incident, state) = (told.incident, word(told.state));
        let so_far = format!("not {until} within {seconds} s; incident {incident} is {state}");
        let hint = match told.state {
            Progress::Received | Progress::Recorded if self.interrupted => {
                format!(
                    " or further: what its device was told is not told here, and GET /v1/incidents/{incident} knows"
                )
            }
            Progress::Received | Progress::Recorded if !self.target.alone => {
                " and stays so. Is headquarters reachable?".into()
            }
            _ => " so far. Longer with --timeout".into(),
        };
        so_far + &hint
    }
}

/// Lets the client's goodbye, and its last acknowledgement before it, reach the gateway.
async fn goodbye(link: &mut EventLoop) {
    while let Ok(event) = link.poll().await {
        if matches!(event, Event::Outgoing(Outgoing::Disconnect)) {
            return;
        }
    }
}

/// A state as the protocol writes it.
fn word(state: Progress) -> String {
    serde_json::to_value(state).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

/// An id that no other press has.
fn press_id() -> String {
    let mut random = [0u8; 8];
    // Without randomness the time still tells presses apart.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let hex: String = random.iter().map(|b| format!("{b:02x}")).collect();
    format!("cli-{}-{hex}", clock::wall().unix_ms())
}

struct Say {
    json: bool,
    colour: bool,
    began: Mono,
    /// The exit status when standard output takes no more.
    unwritten: Option<ExitCode>,
}

impl Say {
    fn step(&mut self, step: &str, detail: &str) {
        let ms = clock::mono().since(self.began).as_secs_f64() * 1e3;
        let line = if self.json {
            serde_json::json!({ "step": step, "detail": detail, "ms": (ms * 1e3).round() / 1e3 }).to_string()
        } else if self.colour {
            format!("\x1b[2m{ms:>9.1} ms\x1b[0m  \x1b[1;32m{step:<13}\x1b[0m {detail}")
        } else {
            format!("{ms:>9.1} ms  {step:<13} {detail}")
        };
        if self.unwritten.is_none() {
            self.unwritten = output::print(&(line + "\n")).err();
        }
    }
}
