//! What the demo shows in the terminal: what each side says, as it happens, and the state of things on the last line. Without
//! a terminal the same lines, plain.

use std::{
    io::{IsTerminal, Write, stdout},
    time::Duration,
};

use crossterm::{
    cursor::MoveToColumn,
    event::{Event, EventStream, KeyCode, KeyModifiers},
    queue,
    style::{Color, Print, ResetColor, SetForegroundColor},
    terminal::{self, Clear, ClearType},
};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::{Demo, district::District, place::Place};
use crate::{cli::run::Running, district::clock::Utc, host::clock};

/// Lines that wait to be shown; when full, the newest is left out.
pub const LINES: usize = 256;

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A button.
    Button(&'static str),
    /// The gateway.
    Gateway,
    /// Headquarters.
    Headquarters,
    /// The demo itself.
    Demo,
}

/// A line of what happens.
#[derive(Debug)]
pub struct Line {
    at: Utc,
    who: Who,
    text: String,
}

impl Line {
    /// Said now.
    pub fn new(who: Who, text: String) -> Self {
        Self { at: clock::wall(), who, text }
    }
}

/// Shows what happens until a key says to end.
pub async fn show(demo: &Demo, district: &District, running: &Running, place: &Place, mut lines: mpsc::Receiver<Line>) {
    let page = running.page.as_str();
    let tty = stdout().is_terminal() && std::io::stdin().is_terminal();
    let mut screen = Screen { tty, footer: String::new() };
    screen.say(&Line::new(Who::Demo, format!("the district's page is at {page}")));
    for (button, at) in district.buttons.iter().filter_map(|b| Some((b, b.page(page)?))) {
        screen.say(&Line::new(
            Who::Demo,
            format!("{} has a screen; be it, with your camera and microphone: {at}", button.id),
        ));
    }
    if let (Some(rtsp), Some(camera)) = (running.rtsp, district.masts().next()) {
        let text = format!("each camera is live for players too, such as ffplay rtsp://{rtsp}/{camera}");
        screen.say(&Line::new(Who::Demo, text));
    }
    screen.say(&Line::new(Who::Demo, format!("config, log and headquarters' evidence: {}", place.config().display())));
    if tty {
        let _ = terminal::enable_raw_mode();
        screen.say(&Line::new(Who::Demo, KEYS.into()));
    }
    let mut keys = tty.then(EventStream::new);
    let (_, mut changes) = demo.facade.board().follow(None);
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            Some(line) = lines.recv() => screen.say(&line),
            key = next_key(&mut keys) => match key {
                Some(key) => match act(demo, district, key) {
                    Some(text) => screen.say(&Line::new(Who::Demo, text)),
                    None => return,
                },
                None => keys = None,
            },
            change = changes.recv() => if let Ok(change) = change && change.event == "camera" {
                screen.say(&camera_line(&change.data()));
            },
            _ = tick.tick() => screen.footer(footer(demo)),
        }
    }
}

/// Gives the terminal back.
pub fn farewell() {
    if terminal::is_raw_mode_enabled().unwrap_or(false) {
        let _ = terminal::disable_raw_mode();
        println!();
    }
}

const KEYS: &str = "keys: 1-6 press a button · t test press · s seen · d dispatched · c close · u pull the plug · x fail a camera · q quit";

async fn next_key(keys: &mut Option<EventStream>) -> Option<KeyCode> {
    let Some(stream) = keys else { return std::future::pending().await };
    loop {
        match stream.next().await? {
            Ok(Event::Key(key)) if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Some(KeyCode::Char('q'));
            }
            Ok(Event::Key(key)) => return Some(key.code),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// Does what a key says; `None` ends the demo.
fn act(demo: &Demo, district: &District, key: KeyCode) -> Option<String> {
    let step = |verb: &str| match demo.hq.step(verb) {
        true => format!("the operator says: {verb}"),
        false => "no open incident at headquarters".into(),
    };
    let KeyCode::Char(c) = key else { return Some(KEYS.into()) };
    Some(match c {
        'q' => return None,
        '1'..='9' => match district.buttons.get(c as usize - '1' as usize) {
            Some(button) if demo.devices.press(button.id, "panic") => {
                format!("a thumb on {} ({})", button.id, button.name)
            }
            _ => "no such button".into(),
        },
        't' => {
            demo.devices.press(district.buttons[0].id, "test");
            format!("a test press on {}", district.buttons[0].id)
        }
        's' => step("seen"),
        'd' => step("dispatched"),
        'c' => step("close"),
        'u' => {
            let up = !demo.plug.is_up();
            match demo.plug.set_up(up) {
                Ok(()) if up => "the backhaul's plug is in again".into(),
                Ok(()) => "the backhaul's plug is pulled".into(),
                Err(e) => format!("the plug is stuck: {e}"),
            }
        }
        'x' => {
            let camera = district.masts().next().unwrap_or_default();
            let up = !demo.cameras.is_up(camera).unwrap_or(false);
            demo.cameras.set_up(camera, up);
            format!("{camera} {}", if up { "has power again" } else { "loses power" })
        }
        _ => KEYS.into(),
    })
}

fn camera_line(data: &[u8]) -> Line {
    let value: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
    let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let detail = field("detail");
    let why = if detail.is_empty() { detail } else { format!(" ({detail})") };
    Line::new(Who::Gateway, format!("{} is {}{why}", field("id"), field("state")))
}

fn footer(demo: &Demo) -> String {
    let Some(s) = demo.facade.board().status_now() else { return String::new() };
    format!(
        "buttons {}/{}  cameras {}/{}  open incidents {}  backhaul {}  waiting: {} documents, {} objects",
        s.buttons.good,
        s.buttons.total,
        s.cameras.good,
        s.cameras.total,
        s.open_incidents,
        s.backhaul,
        s.pending_documents,
        s.pending_objects,
    )
}

struct Screen {
    tty: bool,
    footer: String,
}

impl Screen {
    fn say(&mut self, line: &Line) {
        let (who, colour) = match line.who {
            Who::Button(id) => (id, Color::Yellow),
            Who::Gateway => ("gateway", Color::Cyan),
            Who::Headquarters => ("headquarters", Color::Green),
            Who::Demo => ("demo", Color::Grey),
        };
        let at = line.at.to_string();
        let time = at.get(11..23).unwrap_or(&at);
        let mut out = stdout().lock();
        if !self.tty {
            let _ = writeln!(out, "{time} {who:<13} {}", line.text);
            return;
        }
        let _ = queue!(
            out,
            MoveToColumn(0),
            Clear(ClearType::CurrentLine),
            SetForegroundColor(Color::DarkGrey),
            Print(time),
            SetForegroundColor(colour),
            Print(format!(" {who:<13} ")),
            ResetColor,
            Print(&line.text),
            Print("\r\n"),
        );
        drop(out);
        self.draw_footer();
    }

    fn footer(&mut self, text: String) {
        if self.tty && text != self.footer {
            self.footer = text;
            self.draw_footer();
        }
    }

    fn draw_footer(&self) {
        let mut out = stdout().lock();
        let width = terminal::size().map_or(80, |(w, _)| w as usize);
        let text: String = self.footer.chars().take(width.saturating_sub(1)).collect();
        let _ = queue!(
            out,
            MoveToColumn(0),
            Clear(ClearType::CurrentLine),
            SetForegroundColor(Color::Black),
            crossterm::style::SetBackgroundColor(Color::DarkGrey),
            Print(text),
            ResetColor,
        );
        let _ = out.flush();
    }
}
